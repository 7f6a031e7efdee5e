"The simulator's promises: scenes are pure functions, episodes replay to the last bit, bad programs fail with a reason, a lost worker loses nothing."
import hashlib
import os
import signal
import threading
import time
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from thinkact_nb.env import UserError
from thinkact_nb.sim import (LEVELS, MAX_STEPS, PERTURBATIONS, TASKS, Program, SimPool, Step, World, is_success, make_scene, parse_program, run_episode, solve, to_bins)

SCENES = [make_scene(task, level, seed) for seed in range(3) for task in TASKS for level in LEVELS][:100]


def digest(job):
    "Outcome of the expert and hash of the image; every third scene first sees a program that ends with a closed hand."
    from thinkact_nb.sim import _world
    scene, program = job
    world = _world().reset(scene)
    if scene.seed % 3 == 0: world.run(Program(program.steps[:1]))
    pixels = world.reset(scene).render()
    return hashlib.sha256(pixels.tobytes()).hexdigest(), world.run(program)


def test_replay_is_exact_in_any_order_and_any_process():
    jobs = [(s, solve(s)) for s in SCENES]
    there = [digest(job) for job in jobs]
    back = [digest(job) for job in jobs[::-1]][::-1]
    with SimPool(2) as pool: spread = pool.map(digest, jobs)
    assert there == back == spread
    assert all(outcome.success for _, outcome in there)


def test_a_new_world_gives_the_same_episode():
    for scene in SCENES[:9]:
        world = World()
        assert world.reset(scene).run(solve(scene)) == run_episode((scene, solve(scene)))
        world.close()


def test_perturbations_change_the_picture_and_not_the_physics():
    world = World()
    for task in ('put_on', 'sort', 'swap'):
        plain = make_scene(task, 'L0', 5)
        image, outcome = world.reset(plain).render(), world.run(solve(plain))
        for name in PERTURBATIONS:
            other = make_scene(task, 'L0', 5, (name,))
            assert (world.reset(other).render() != image).any(), name
            assert world.run(solve(other)).poses[:len(plain.bodies)] == outcome.poses, name
        assert (world.reset(plain).render() == image).all()
    world.close()


def shifted(program, k, by):
    "The program with its k-th step moved along x."
    steps = list(program.steps)
    steps[k] = Step(steps[k].skill, min(max(steps[k].x + by, 0), 63), steps[k].y)
    return Program(tuple(steps))


def other_block(scene):
    "The expert's program, with a block picked that is not the one to move."
    goal = {i for move in scene.moves for i in move}
    body = next(b for i, b in enumerate(scene.bodies) if b.kind == 'block' and i not in goal)
    return Program((Step('pick', *to_bins(*body.place)), *solve(scene).steps[1:]))


def other_side(scene):
    "The block put on the opposite side of the one it should stand beside."
    spot, reference = scene.places[0], scene.bodies[scene.moves[0][1]].place
    return Program((solve(scene).steps[0], Step('place', *to_bins(*(2 * r - s for s, r in zip(spot, reference))))))


def crowd(scene):
    "One of the blocks that are alike, picked."
    return Program((Step('pick', *to_bins(*scene.bodies[1].place)), solve(scene).steps[1]))


BAD = dict(put_on=lambda s: shifted(solve(s), 1, 6), stack=lambda s: shifted(solve(s), 1, 4), relative=other_side,
           superlative=other_block, match=other_block, odd_one_out=crowd,
           sort=lambda s: Program(tuple(solve(s).steps[:-2])), swap=lambda s: Program(tuple(solve(s).steps[:4])), detour=lambda s: Program((solve(s).steps[0], solve(s).steps[-1])))


@pytest.mark.parametrize('task', TASKS)
def test_a_bad_program_fails(task):
    world, failed = World(), 0
    for seed in range(4):
        scene = make_scene(task, 'L0', seed)
        try: program = BAD[task](scene)
        except StopIteration: continue  # every block takes part in this scene
        outcome = world.reset(scene).run(program)
        assert not outcome.success and outcome.failure, (task, seed, outcome)
        assert not is_success(scene, outcome.poses)
        failed += 1
    assert failed
    world.close()


def test_driving_through_the_wall_is_reported():
    world = World()
    for seed in range(5):
        scene = make_scene('detour', 'L0', seed)
        outcome = world.reset(scene).run(BAD['detour'](scene))
        assert outcome.contact_with == 'grey wall' and outcome.contact_force > 20, outcome
        assert world.reset(scene).run(solve(scene)).contact_force == 0
    world.close()


@pytest.mark.parametrize('steps, failure', [
    ([Step('pick', 64, 0)], 'invalid'), ([Step('pick', -1, 0)], 'invalid'), ([Step('pick', float('nan'), 3)], 'invalid'), ([Step('pick', None, 3)], 'invalid'),
    ([Step('jump', 3, 3)], 'invalid'), ([Step('pick', 30, 30)] * 1000, 'invalid'), ([Step('pick', 63, 63)], 'unreachable'), ([Step('pick', 0, 0)], 'missed'),
    ([Step('place', 30, 10)], 'empty_hand'), ([Step('via', 30, 30)], 'wrong_place'), ([], 'wrong_place')])
def test_any_program_has_an_outcome_and_the_arm_rests(steps, failure):
    from thinkact_nb.sim import HOME, _world
    scene = make_scene('put_on', 'L0', 0)
    outcome = _world().reset(scene).run(Program(tuple(steps)))
    assert (outcome.success, outcome.failure) == (False, failure)
    assert np.allclose([j[0] for j in _world()._joints(_world().robot, range(7))], HOME, atol=.02)


def test_long_programs_are_not_parsed(): assert 'at most' in parse_program(';'.join(['via <loc01><loc01>'] * (MAX_STEPS + 1)))[1]


def test_scenes_are_what_their_level_says():
    from thinkact_nb.sim import INNER, KNOWN, NEW
    inside = lambda b: all(lo <= v <= hi for v, (lo, hi) in zip(b.place, INNER))
    for task, spec in TASKS.items():
        assert len(spec.wordings) >= 10
        for seed in range(30):
            scenes = {level: make_scene(task, level, seed) for level in LEVELS}
            ends = {level: [s.bodies[i] for move in s.moves for i in move] for level, s in scenes.items()}
            assert all(map(inside, ends['L0'])) and not all(map(inside, ends['L1']))
            kept = [w.format(noun='block', **dict(scenes['L0'].words)) for w in spec.wordings[-2:]]
            assert scenes['L0'].instruction not in kept
            assert all(b.colour in KNOWN for b in scenes['L0'].bodies if b.kind != 'wall') and all(b.kind != 'cylinder' for b in scenes['L0'].bodies)
            new = [any(b.colour in NEW for b in ends['L3']), any(b.kind == 'cylinder' for b in ends['L3'])]
            words = {k: dict(scenes['L3'].words) for k in ('L3',)}['L3']
            new.append(any(scenes['L3'].instruction == w.format(noun=n, **words) for w in spec.wordings[-2:] for n in ('block', 'cylinder')))
            assert sum(new) == 1, (task, seed, new)
            assert not any(is_success(s, s.start) for s in scenes.values())


def test_env_checker_has_no_complaint():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        env = gymnasium.make('ThinkAct/Tabletop-v0', task='swap', level='L1', render_mode='rgb_array')
        check_env(env.unwrapped)
        (one, told), (again, _) = env.reset(seed=3), env.reset(seed=3)
    assert (one['image'] == again['image']).all() and one['instruction'] == again['instruction']
    chosen, info = env.reset(options=dict(seed=told['scene_seed']))
    assert info == told and (chosen['image'] == one['image']).all()
    *_, reward, ended, cut, info = env.step(f'<think></think><action>{solve(make_scene("swap", "L1", told["scene_seed"]))}</action>')
    assert (reward, ended, cut, info['success']) == (1., True, False, True)
    assert env.step('what?')[1] == -1
    with pytest.raises(UserError): gymnasium.make('ThinkAct/Tabletop-v0', task='juggle')


def test_killed_workers_change_nothing():
    jobs = [(s, solve(s)) for s in SCENES[:60]]
    expected = [run_episode(job) for job in jobs]
    with SimPool(2) as pool:
        pool.map(run_episode, jobs[:2])
        killed = []
        def kill():
            for _ in range(2):
                time.sleep(.4)
                worker = next(iter(pool._processes._pool_manager.worker_manager.workers))
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
        thread = threading.Thread(target=kill)
        thread.start()
        assert pool.map(run_episode, jobs) == expected
        thread.join()
    assert len(killed) == 2


def hang_once(flag):
    "Hangs the first time, answers the second."
    if not Path(flag).exists():
        Path(flag).touch()
        time.sleep(60)
    return os.getpid()


def test_a_job_that_hangs_is_run_again(tmp_path):
    with SimPool(1, limit=1.) as pool: assert len(pool.map(hang_once, [str(tmp_path / 'flag')])) == 1


def die(_): os._exit(9)


def test_a_job_that_always_kills_its_worker_is_named():
    with pytest.raises(RuntimeError, match='2 workers died'):
        with SimPool(1, attempts=2) as pool: pool.map(die, ['the job'])
