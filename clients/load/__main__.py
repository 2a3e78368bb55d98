# `python -m clients.load`: measure a model from the command line, without the control plane.
from clients.load.command import load

if __name__ == "__main__":
    load(prog_name="python -m clients.load")
