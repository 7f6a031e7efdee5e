__version__ = "0.2.0"

# PyTorch's threads wait for one another by spinning. On a machine with other work each then spins away the time that another needs: a training step
# may take fifteen times as long. A short spin, then sleep, serves idle and busy machines (00_env has the measurement). It counts only if it is set
# before torch is imported, and only if the user has not chosen.
import os

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "10000"

# An empty variable of a launcher is none: libraries read it as a number
for _name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
    if os.environ.get(_name) == "": del os.environ[_name]

# Files of the user's own, such as tasks, that run with the package in this process and in every simulator worker (commands/cli, --use)
for _file in filter(None, os.environ.get("THINKACT_USE", "").split(os.pathsep)):
    with open(_file, "rb") as _source:
        exec(compile(_source.read(), _file, "exec"), {"__name__": "thinkact_use", "__file__": _file})
