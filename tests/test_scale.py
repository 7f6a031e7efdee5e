"More machines and more processes give what one gives."
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from thinkact_nb import data, sim
from thinkact_nb.store import SHIPPED, Store
from thinkact_nb.model import load_model
from thinkact_nb.pool import SimPool
from thinkact_nb.tasks import spread

HERE = Path(__file__).parent


def launch(*words, processes=2):
    command = ['-m', 'accelerate.commands.launch', '--config_file', HERE.parent/'configs'/'ddp.yaml'] if processes > 1 else []
    done = subprocess.run([sys.executable, *map(str, (*command, HERE/'launched.py', *words))], capture_output=True, text=True, timeout=600,
                          env=os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(HERE.parent), TQDM_DISABLE='1', THINKACT_RENDERER='tiny'), encoding='utf-8')
    assert not done.returncode, done.stderr[-3000:]
    return done.stdout


def test_sft_of_two_processes_is_sft_of_twice_the_batch(tmp_path):
    for name in ('one', 'two'): data.make_dataset(40, tmp_path/name/'data', SimPool(0))
    launch('sft', tmp_path/'one', 8, processes=1)
    launch('sft', tmp_path/'two', 4)
    one, two = (load_file(tmp_path/name/'weights.safetensors') for name in ('one', 'two'))
    assert one.keys() == two.keys()
    far = {k: (one[k] - two[k]).abs().max().item() for k in one}
    assert max(far.values()) < 1e-5, max(far, key=far.get)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "PPO of two processes: uninterrupted, and killed in the second update and resumed."
    from launched import PROFILE
    out = {name: Store(tmp_path_factory.mktemp(name)/'run', PROFILE) for name in ('whole', 'killed')}
    adapter = load_model(PROFILE, trainable=True)
    for store in out.values(): adapter.save_pretrained(store.path('sft'))
    launch('ppo', out['whole'].run, 'whole')
    assert 'stopped:' in launch('ppo', out['killed'].run, 'kill')
    launch('ppo', out['killed'].run, 'resume')
    return {name: store.run/'rl'/'ppo' for name, store in out.items()}


@pytest.mark.long
def test_ppo_of_two_processes_counts_the_episodes_of_both(runs):
    table, log = pd.read_parquet(runs['whole']/'rollouts.parquet'), json.loads((runs['whole']/'log.json').read_text(encoding='utf-8'))
    assert table['update'].value_counts().to_dict() == {1: 16, 2: 16, 3: 16} and not table.duplicated(['task', 'seed']).any()
    for row, (_, episodes) in zip(log, table.groupby('update')):
        for name in ('success', 'reward', 'parsed', 'think_tokens'): assert row[name] == pytest.approx(episodes[name].mean(), abs=1e-6)


@pytest.mark.long
def test_ppo_of_two_processes_resumes(runs):
    whole, killed = (pd.read_parquet(folder/'rollouts.parquet') for folder in runs.values())
    pd.testing.assert_frame_equal(whole, killed)
    a, b = (load_file(folder/'adapter_model.safetensors') for folder in runs.values())
    assert all((a[k] == b[k]).all() for k in a) and any(a[k].any() for k in a if 'lora_B' in k)


@pytest.mark.long
def test_ppo_on_turns_of_two_processes_resumes(tmp_path):
    "Each process plays its own episodes; one update and one more are two."
    from launched import PROFILE
    stores, adapter = [Store(tmp_path/name, PROFILE) for name in ('whole', 'parts')], load_model(PROFILE, trainable=True)
    for store in stores: adapter.save_pretrained(store.path('sft'))
    launch('turns', stores[0].run, 2)
    for updates in (1, 2): launch('turns', stores[1].run, updates)
    one, other = (pd.read_parquet(store.run/'rl'/'ppo'/'rollouts.parquet') for store in stores)
    assert one['update'].value_counts().to_dict() == {1: 16, 2: 16} and (one['sample'] > 0).any()
    assert not one.duplicated(['update', 'task', 'seed', 'sample']).any()
    pd.testing.assert_frame_equal(one, other)
    a, b = (load_file(store.run/'rl'/'ppo'/'adapter_model.safetensors') for store in stores)
    assert all((a[k] == b[k]).all() for k in a) and any(a[k].any() for k in a if 'lora_B' in k)


def outcomes(pool, scenes):
    "What happened, to the last digit."
    return pool.run(scenes, [sim.solve(s) for s in scenes])


def test_ray_gives_what_one_process_gives_also_when_a_node_dies(monkeypatch):
    pytest.importorskip('ray')
    from ray.cluster_utils import Cluster
    from thinkact_nb.pool import RayPool
    monkeypatch.setenv('RAY_worker_niceness', '0')
    scenes = spread(200)
    with SimPool(1) as pool: expected = outcomes(pool, scenes)
    cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, include_dashboard=False))
    second = cluster.add_node(num_cpus=1)
    monkeypatch.setenv('RAY_ADDRESS', cluster.address)
    try:
        with RayPool() as pool:
            assert pool.workers == 2 and outcomes(pool, scenes) == expected
            schedule, asked = pool._schedule, []
            def kill(work, chunk):
                asked.append(chunk)
                if len(asked) == 30: cluster.remove_node(second, allow_graceful=False)
                return schedule(work, chunk)
            pool._schedule = kill
            assert outcomes(pool, scenes) == expected and len(asked) >= 30
    finally: cluster.shutdown()


def test_rejection_sampling_of_two_processes_draws_what_one_draws(tmp_path):
    "Each process draws some parts; then both learn all of them."
    runs = [tmp_path/'one', tmp_path/'two']
    for run in runs:
        data.make_dataset(8, run/'data', SimPool(0), ('put_on',))
        shutil.copytree(SHIPPED/'sft', run/'sft')
    launch('rft', runs[0], 1, processes=1)
    launch('rft', runs[1], 1)
    drawn = [[pd.read_parquet(file).output.tolist() for file in sorted(run.glob('own/*/train.parquet'))] for run in runs]
    assert len(drawn[0]) == 3 and drawn[0] == drawn[1] and sum(map(len, drawn[0])) > 0
    assert (runs[1]/'rl/rft/adapter_model.safetensors').exists() and Store(runs[1]).made('rl/rft')['scenes'] == 6
