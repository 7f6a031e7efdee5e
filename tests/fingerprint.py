"""60 episodes and their pictures as hashes: does the PyBullet that is installed here give the bits that the others gave? `python tests/fingerprint.py`
compares with fingerprint.txt and needs no more than the package; --write writes that file anew, for when scenes or the simulator change on purpose.
Recorded on Linux, x86_64, with pybullet 3.2.7; pybullet-arm64 3.2.8 gives the same on Python 3.11, 3.12 and 3.13."""
import hashlib
import random
import sys
from pathlib import Path

import numpy as np
from thinkact_nb.env import PYBULLET, hardware
from thinkact_nb.pool import own_world
from thinkact_nb.sim import BINS, PERTURBATIONS, SKILLS, Program, Step, make_scene, solve
from thinkact_nb.tasks import TASKS

FILE = Path(__file__).parent/'fingerprint.txt'


def wild(scene):
    "Three steps that nobody planned."
    rng = random.Random(scene.seed)
    return Program(tuple(Step(rng.choice(SKILLS), rng.randrange(BINS), rng.randrange(BINS)) for _ in range(3)))


def jobs():
    "What is played: 36 times the expert, 8 times under perturbations, 8 times half a program, 8 times a wild one."
    expert = [(f'{task} {level} 1', make_scene(task, level, 1), solve) for task in TASKS for level in ('L0', 'L1', 'L2', 'L3')]
    seen = [(f'{task} L0 2 {name}', make_scene(task, 'L0', 2, (name,)), solve) for name in PERTURBATIONS for task in ('stack', 'sort')]
    half = [(f'{task} L0 3 half', make_scene(task, 'L0', 3), lambda s: Program(solve(s).steps[:1])) for task in list(TASKS)[:8]]
    any_ = [(f'{task} L0 4 wild', make_scene(task, 'L0', 4), wild) for task in list(TASKS)[:8]]
    return [*expert, *seen, *half, *any_]


def digest(*parts): return hashlib.sha256(b''.join(parts)).hexdigest()[:16]


def play(name, scene, program):
    "A line: the episode's name, the hash of its physics, the hash of its picture."
    world = own_world().reset(scene)
    picture = world.render().tobytes()
    end = world.run(program(scene))
    arm = [number for joint in world._joints(world.robot, range(7)) for number in joint[:2]]
    numbers = [end.contact_force, end.joint_speed, end.off_table, end.sim_steps, *np.ravel(end.poses), *arm]
    words = f'{end.success} {end.failure} {end.contact_with} {end.dropped}'
    return f'{name}: {digest(np.array(numbers, np.float64).tobytes(), words.encode())} {digest(picture)}'


def moved(kept, found):
    "One line on what differs, empty if nothing does."
    pairs = [(a, b) for a, b in zip(kept, found, strict=True) if a != b]
    if not pairs: return ''
    physics, pictures = (sum(a.split()[i] != b.split()[i] for a, b in pairs) for i in (-2, -1))
    names = hardware()['versions']
    here = ', '.join(f'{name} {names[name]}' for name in PYBULLET if names.get(name))
    return (f'{here} moves bits: of {len(kept)} episodes {physics} end otherwise and {pictures} look otherwise; the first is {pairs[0][1].split(":")[0]}. '
            'Committed tables were made with the other bits, and do not replay exactly here')


if __name__ == '__main__':
    found = [play(*job) for job in jobs()]
    if '--write' in sys.argv: FILE.write_text('\n'.join(found) + '\n', encoding='utf-8')
    sys.exit(moved(FILE.read_text(encoding='utf-8').splitlines(), found) or None)
