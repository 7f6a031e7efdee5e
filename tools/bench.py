"""Times what users wait for; one JSON line each: name, value, unit, reference, ratio (value over reference).
References marked "same run" were measured beside the value; the others are goals. Machines differ, so compare ratios of one run.

    python tools/bench.py throughput episodes  # some parts"""
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager


def tell(name, value, unit, reference):
    print(json.dumps(dict(name=name, value=round(value, 3), unit=unit, reference=round(reference, 3), ratio=round(value/reference, 2))), flush=True)


def seconds(f, repeat):
    "Seconds per call, the median of `repeat` calls."
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run(*command): return lambda: subprocess.run(command, check=True, capture_output=True)


@contextmanager
def silent():
    from thinkact_nb.env import quiet
    with quiet(): yield


def peer(episodes=6):
    "Episodes per second of panda-gym's pick and place: 50 steps of random actions and one image of 128 px. None if it is not installed."
    try: import panda_gym  # noqa: F401
    except ImportError: return None
    import gymnasium
    with silent():
        env = gymnasium.make('PandaPickAndPlace-v3', render_mode='rgb_array', renderer='Tiny', render_width=128, render_height=128)
        def episode():
            env.reset(seed=0)
            for _ in range(50): env.step(env.action_space.sample())
            env.render()
        took = seconds(episode, episodes)
        env.close()
    return 1/took


def simulator():
    from thinkact_nb.sim import make_scene, solve
    from thinkact_nb.world import World
    from thinkact_nb.tasks import TASKS
    world = World()
    tell('image of 128 px', 1000*seconds(world.reset(make_scene('put_on', 'L0', 0)).render, 50), 'ms', 4.)
    def expert(task, n=25):
        scenes = iter([make_scene(task, 'L0', s) for s in range(n)])
        def episode():
            world.reset(scene := next(scenes)).render()
            assert world.run(solve(scene)).success
        return 1/seconds(episode, n)
    for task in TASKS:
        beside = peer()
        tell(f'expert episodes with one image, one process: {task}' + ('; reference: panda-gym, same run' if beside else '; reference: goal'), expert(task), '1/s', beside or 30.)
    tell('share of an expert episode inside stepSimulation and getCameraImage', physics_share(world), '', .9)


def physics_share(world, n=40):
    "How much of the wall time of expert episodes, image and safety monitor included, PyBullet's two heavy calls take."
    import pybullet
    from thinkact_nb.sim import make_scene, solve
    inside = 0.
    def timed(f):
        def call(*args, **kwargs):
            nonlocal inside
            start = time.perf_counter()
            out = f(*args, **kwargs)
            inside += time.perf_counter() - start
            return out
        return call
    jobs = [(s := make_scene('put_on', 'L0', seed), solve(s)) for seed in range(n)]
    advance, camera = world._advance, pybullet.getCameraImage
    world._advance, pybullet.getCameraImage = timed(advance), timed(camera)
    start = time.perf_counter()
    for scene, program in jobs:
        world.reset(scene).render()
        world.run(program)
    whole = time.perf_counter() - start
    world._advance, pybullet.getCameraImage = advance, camera
    return inside/whole


def pools(n=200):
    from thinkact_nb.sim import make_scene, solve
    from thinkact_nb.pool import SimPool, run_episode
    jobs = [(s := make_scene('put_on', 'L0', seed), solve(s)) for seed in range(n)]
    rates = {}
    for workers in (1, 2):
        with SimPool(workers) as pool:
            pool.map(run_episode, jobs[:8])
            start = time.perf_counter()
            pool.map(run_episode, jobs)
            rates[workers] = n/(time.perf_counter() - start)
            pids = pool.pids
            memory = max(int(line.split()[1])/1024 for pid in pids for line in open(f'/proc/{pid}/status', encoding='utf-8') if line.startswith('VmRSS')) if os.path.exists('/proc/self/status') else None
    tell('episodes per second, SimPool(2); reference: SimPool(1), same run', rates[2], '1/s', rates[1])
    from thinkact_nb.pool import RayPool
    for workers in (1, 2):  # in turns, so that what else the machine does slows both
        with SimPool(workers) as own, RayPool(workers) as ray:
            seconds_of = {pool: [] for pool in (own, ray)}
            for pool in (own, ray): pool.map(run_episode, jobs[:8])
            for _ in range(3):
                for pool, times in seconds_of.items():
                    start = time.perf_counter()
                    pool.map(run_episode, jobs)
                    times.append(time.perf_counter() - start)
        tell(f'episodes per second, RayPool({workers}); reference: SimPool({workers}), same run', n/statistics.median(seconds_of[ray]), '1/s', n/statistics.median(seconds_of[own]))
    if memory: tell('memory of a simulator worker', memory, 'MB', 250.)


def training(steps=12):
    "SFT on the stand-in: TRL's trainer beside a bare loop over the same batches, and what a checkpoint costs."
    import tempfile
    from pathlib import Path
    import torch
    from transformers import EarlyStoppingCallback, TrainerCallback
    from thinkact_nb.data import make_dataset
    from thinkact_nb.env import get_profile
    from thinkact_nb.files import read_seal
    from thinkact_nb.store import Store
    from thinkact_nb.train import Checkpoints
    from thinkact_nb.sft import make_trainer
    from thinkact_nb.pool import SimPool
    class Clock(TrainerCallback):
        def __init__(self): self.times = []
        def on_step_begin(self, *args, **kwargs): self.start = time.perf_counter()
        def on_step_end(self, *args, **kwargs): self.times.append(time.perf_counter() - self.start)
    store = Store(Path(tempfile.mkdtemp())/'run', get_profile('tiny'))
    batch, parts = store.profile.sft_batch, store.profile.sft_batch//store.profile.sft_micro_batch
    with SimPool(2) as pool: make_dataset(steps*batch, store.path('data'), pool)
    trainer, clock = make_trainer(store, steps=steps, every=1000, validation=9), Clock()
    trainer.remove_callback(EarlyStoppingCallback)
    trainer.args.eval_strategy = 'no'
    trainer.add_callback(clock)
    trainer.train()
    batches = list(trainer.get_train_dataloader())
    model, parameters = trainer.model, [p for p in trainer.model.parameters() if p.requires_grad]
    optimizer, times = torch.optim.AdamW(parameters, 1e-3), []
    for step in range(steps):
        start = time.perf_counter()
        for part in batches[parts*step:parts*(step + 1)]: (model(**part, use_cache=False).loss/parts).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    step = statistics.median(clock.times[2:])
    tell(f'SFT step, batch {batch}; reference: a bare loop over the same batches, same run', step, 's', statistics.median(times[2:]))
    keeper, folder = Checkpoints(store, 'sft', {}), Path(trainer.args.output_dir)/f'checkpoint-{trainer.state.global_step}'
    def save():
        trainer._save_checkpoint(trainer.model, None)
        keeper.on_save(trainer.args, trainer.state, trainer.control)
    tell('saving and sealing a checkpoint; reference: an SFT step, same run', seconds(save, 5), 's', step)
    tell('a checkpoint on the Hub: adapter, optimizer and states', sum(f['size'] for f in read_seal(folder)['files'].values())/1e6, 'MB', 10.)


def reinforcement(updates=4):
    "An update of PPO beside one of TRL's plain GRPO: the same adapter, scenes, batch and reward. And where PPO's time goes."
    import tempfile
    from dataclasses import replace
    from pathlib import Path
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOTrainer
    from thinkact_nb.env import get_profile
    from thinkact_nb.store import Store
    from thinkact_nb.model import load_model
    from thinkact_nb.ledger import log_rows
    from thinkact_nb.sim import make_scene
    from thinkact_nb.trainer import rl_trainer
    from thinkact_nb.pool import SimPool
    class Clock(TrainerCallback):
        def __init__(self): self.times = []
        def on_train_begin(self, args, *rest, **kwargs): self.last = time.perf_counter()
        def on_step_end(self, args, state, *rest, **kwargs):
            if state.global_step % args.logging_steps == 0: self.times.append((now := time.perf_counter()) - self.last); self.last = now
    def timed(trainer):
        trainer.add_callback(clock := Clock())
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return statistics.median(clock.times[1:]), trainer
    store = Store(Path(tempfile.mkdtemp())/'run', replace(get_profile('tiny'), max_new_tokens=60))
    load_model(store.profile, trainable=True).save_pretrained(store.path('sft'))
    with SimPool(2) as pool:
        make = lambda algo: rl_trainer(store, pool, algo, updates=updates, num_generations=4, save_strategy='no')
        ours, trainer = timed(make('ppo'))
        parts = make('grpo')
        def reward(completions, task, level, seed, **_):
            return parts.source.judged([*map(make_scene, task, level, seed)], [c[0]['content'] for c in completions]).reward.tolist()
        plain, _ = timed(GRPOTrainer(load_model(store.profile, store.run/'sft', trainable=True), reward, parts.args, parts.train_dataset, processing_class=parts.processing_class))
    tell('a PPO update of 64 texts; reference: plain GRPOTrainer, same batch and reward, same run', ours, 's', plain)
    rows = log_rows(trainer.state.log_history, trainer.args)[1:]
    for phase in ('generate', 'simulate', 'score', 'learn'): tell(f'share of a PPO update: {phase}', statistics.median(r[f'seconds_{phase}'] for r in rows)/ours, '', 1.)


def episodes(updates=3):
    "An update of the demo, 256 episodes by the policy that comes with the package: by one process with all threads, and by two of one thread."
    import shutil
    import tempfile
    from pathlib import Path
    import pandas as pd
    from thinkact_nb.env import get_profile
    from thinkact_nb.store import SHIPPED, Store
    words = ['thinkact', 'ppo', '--updates', str(updates), '--run']
    two = ['accelerate', 'launch', '--config_file', Path(__file__).parent.parent/'configs'/'ddp.yaml', '--num_processes', '2', '--no_python']
    took = {}
    for name, before, after, threads in (('one', [], [], os.cpu_count()), ('two', two, ['--set', 'rl_batch=128'], 1)):
        store = Store(Path(tempfile.mkdtemp())/'run', get_profile('tiny'))
        shutil.copytree(SHIPPED/'sft', store.path('sft'), dirs_exist_ok=True)
        command = [*map(str, before), *words, str(store.run), *after]
        paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
        subprocess.run(command, check=True, capture_output=True, env=os.environ | dict(PATH=paths, OMP_NUM_THREADS=str(threads)))
        log = pd.read_json(store.run/'rl'/'ppo'/'log.json')
        took[name] = log[[f'seconds_{part}' for part in ('generate', 'simulate', 'score', 'learn')]].sum(axis=1).median()
    tell('an update of PPO of 256 episodes; reference: goal', min(took.values()), 's', 12.)
    tell('an update of PPO by two processes of one thread; reference: one of two threads, same run', took['two'], 's', took['one'])


def in_turns(repeat=5, **ways):
    "Seconds of each way, the median of `repeat` calls; in turns, so that what else the machine does slows all of them."
    times = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items(): times[name].append(seconds(way, 1))
    return {name: statistics.median(each) for name, each in times.items()}


def throughput(texts=64):
    "What an update spares: each way beside the one without it, by the policy that comes with the package."
    import shutil
    import tempfile
    from dataclasses import replace
    from pathlib import Path
    import torch
    from unittest.mock import patch
    from transformers.cache_utils import DynamicLayer
    from thinkact_nb import model
    from thinkact_nb.algorithms import deal
    from thinkact_nb.env import get_profile
    from thinkact_nb.pool import SimPool, run_episode
    from thinkact_nb.sim import make_scene, parse_output
    from thinkact_nb.store import SHIPPED, Store
    from thinkact_nb.trainer import rl_trainer
    store = Store(Path(tempfile.mkdtemp())/'run', replace(get_profile('tiny'), rl_batch=texts))
    shutil.copytree(SHIPPED/'sft', store.path('sft'), dirs_exist_ok=True)
    micro, parts = store.profile.rl_micro_batch, texts//store.profile.rl_micro_batch

    def rolled(trainer, shares=False, ahead=False):
        "A rollout in one way or another, of which `read` is a part."
        k, begin = trainer.num_generations, pool.begin
        trainer.shares = shares
        if not ahead: pool.begin = lambda *job: None
        torch.manual_seed(0)
        trainer._generate_and_score_completions([trainer.train_dataset[i//k] for i in range(texts)])
        pool.begin = begin
        return trainer.batch

    def read(trainer, batch):
        with torch.no_grad(): trainer.score(trainer.model, batch, micro, critic=trainer.value_head)

    def learn(trainer, batch, only=False, shares=False):
        trainer.shares = shares
        for part in deal(batch, parts, 1, only): trainer._compute_loss(trainer.model, part).backward()

    def copied(way):
        "A way with transformers' cache, which is copied for each token."
        with patch.object(model, 'Room', DynamicLayer): way()

    with SimPool(1) as pool, silent():
        one = rl_trainer(store, pool, 'ppo', updates=1, beta=0., num_generations=1)
        four = rl_trainer(store, pool, 'grpo', updates=1, beta=0.)
        for trainer in (one, four): trainer.model.train()
        rolled(one)
        kept = in_turns(3, now=lambda: rolled(one), before=lambda: read(one, rolled(one)))
        ahead = in_turns(3, now=lambda: rolled(one, ahead=True), before=lambda: rolled(one))
        written = in_turns(3, now=lambda: rolled(four, shares=True), before=lambda: rolled(four))
        room = in_turns(3, now=lambda: rolled(four, shares=True), before=lambda: copied(lambda: rolled(four, shares=True)))
        batch = rolled(four, shares=True)
        half = batch | dict(advantages=batch['advantages']*(batch['scene'] % 2)[:, None])
        some = in_turns(3, now=lambda: learn(four, half, True), before=lambda: learn(four, half))
        shared = in_turns(3, now=lambda: learn(four, batch, shares=True), before=lambda: learn(four, batch | dict(scene=torch.arange(texts))))
        said = four.rollout.episodes
        jobs = [(make_scene(*key), parse_output(text).program) for *key, text in zip(said.task, said.level, said.seed, said.output)]
        once = in_turns(3, now=lambda: pool.run(*zip(*jobs)), before=lambda: pool.map(run_episode, jobs))
    for name, took in {f'a rollout of {texts} texts that keeps what writing knew; reference: each text read once more': kept,
                       'a rollout whose episodes begin while texts are written; reference: afterwards': ahead,
                       'a rollout of four texts a scene that reads a prompt once; reference: once for each text': written,
                       'a rollout whose cache has room for tokens to come; reference: a cache that is copied for each': room,
                       'learning where half of the texts teach nothing; reference: from all of them': some,
                       'learning from four texts a scene in one row; reference: each in its own': shared,
                       'episodes of four texts a scene, equal ones once; reference: each': once}.items():
        tell(f'{name}, same run', took['now'], 's', took['before'])


def evaluation(n=300):
    "Two arms on the same scenes, greedily decoded, with adapters that say what the demo's say if it was run; and where the time goes."
    import tempfile
    from pathlib import Path
    from thinkact_nb import model
    from thinkact_nb.tasks import spread
    from thinkact_nb.env import SPLITS, get_profile
    from thinkact_nb.store import Store
    from thinkact_nb.evaluate import evaluate
    from thinkact_nb.pool import SimPool
    store = Store(Path(tempfile.mkdtemp())/'run', get_profile('tiny'))
    demo = Path('runs/demo')
    spent = {}
    def clocked(name, f):
        def call(*args, **kwargs):
            start = time.perf_counter()
            out = f(*args, **kwargs)
            spent[name] = spent.get(name, 0) + time.perf_counter() - start
            return out
        return call
    with silent():
        if not (demo/'rl'/'ppo'/'adapter_config.json').exists(): model.load_model(store.profile, trainable=True).save_pretrained(store.path('sft'))
    arms = [f'{arm}={folder if folder.exists() else store.run/"sft"}' for arm, folder in (('one', demo/'sft'), ('two', demo/'rl'/'ppo'))]
    whole, model.write = model.write, clocked('write', model.write)
    start = time.perf_counter()
    with SimPool(2) as pool, silent():
        pool.run, pool.images = clocked('simulate', pool.run), clocked('draw', pool.images)
        evaluate(store, arms, spread(n, seed=SPLITS['test']), pool)
    took, model.write = time.perf_counter() - start, whole
    tell(f'evaluation of two arms in {n} scenes', took, 's', 240.)
    for phase in ('draw', 'write', 'simulate'): tell(f'share of evaluation: {phase}', spent[phase]/took, '', 1.)


def datasets(n=900):
    "Demonstrations made: their rate beside that of the bare expert episodes, and what they weigh."
    import tempfile
    from pathlib import Path
    import datasets as _  # noqa: F401, a second that has nothing to do with rows
    from thinkact_nb.tasks import spread
    from thinkact_nb.data import make_dataset
    from thinkact_nb.sim import solve
    from thinkact_nb.pool import SimPool, run_episode
    scenes, folder = spread(n), Path(tempfile.mkdtemp())
    with SimPool(2) as pool:
        pool.map(run_episode, [(s, solve(s)) for s in scenes[:18]])
        start = time.perf_counter()
        pool.map(run_episode, [(s, solve(s)) for s in scenes])
        bare = n/(time.perf_counter() - start)
        start = time.perf_counter()
        make_dataset(n, folder, pool)
        tell('demonstrations per second, two processes; reference: expert episodes with no image and no text, same run', n/(time.perf_counter() - start), '1/s', bare)
    tell('a demonstration in Parquet', (folder/'train.parquet').stat().st_size/n/1000, 'kB', 20.)


def command_line():
    tell('import thinkact_nb.world', 1000*seconds(run(sys.executable, '-c', 'import thinkact_nb.world'), 5), 'ms', 700.)
    tell('thinkact --help', 1000*seconds(run(sys.executable, '-c', 'from thinkact_nb.cli import main; import sys; sys.argv = ["thinkact", "--help"]; main()'), 5), 'ms', 600.)


if __name__ == '__main__':
    with silent(): import thinkact_nb.world  # noqa: F401, PyBullet greets
    parts = (simulator, pools, datasets, training, reinforcement, throughput, episodes, evaluation, command_line)
    for part in parts:
        if part.__name__ in (sys.argv[1:] or [each.__name__ for each in parts]): part()
