# The only file that knows which concrete parts are used.
