# The HTTP API: a thin face on the services.
