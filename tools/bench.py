"""Times what users wait for; one JSON line each: name, value, unit, reference, ratio (value over reference).
References were measured on two CPU cores; machines differ, so compare ratios of one run."""
import json
import subprocess
import sys
import time

REFERENCE = {'episode': 28., 'image of 128 px': 4., 'thinkact --help': 600., 'import thinkact_nb.sim': 700.}  # milliseconds


def tell(name, milliseconds):
    print(json.dumps(dict(name=name, value=round(milliseconds, 2), unit='ms', reference=REFERENCE[name], ratio=round(milliseconds/REFERENCE[name], 2))), flush=True)


def timed(f, repeat):
    "Milliseconds per call, the median of `repeat` calls."
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeat//2]*1000


def run(*command): return lambda: subprocess.run(command, check=True, capture_output=True)


if __name__ == '__main__':
    from thinkact_nb.sim import World, make_scene, solve
    world, scenes = World(), iter([make_scene('put_on', 'L0', s) for s in range(100)])
    def episode():
        scene = next(scenes)
        assert world.reset(scene).run(solve(scene)).success
    tell('episode', timed(episode, 50))
    tell('image of 128 px', timed(world.render, 50))
    tell('import thinkact_nb.sim', timed(run(sys.executable, '-c', 'import thinkact_nb.sim'), 5))
    tell('thinkact --help', timed(run(sys.executable, '-c', 'from thinkact_nb.report import main; import sys; sys.argv = ["thinkact", "--help"]; main()'), 5))
