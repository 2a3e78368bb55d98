# The only floor that knows Triton and its protobufs.
