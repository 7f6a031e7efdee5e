"Training that is killed goes on, on a fresh machine, and ends with the same bits."
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
import hub as loopback

TRAIN = '''
import sys
from dataclasses import replace
from pathlib import Path
from thinkact_nb.env import UserError, get_profile
from thinkact_nb.hub import Hub
from thinkact_nb.store import Store
from thinkact_nb.pool import SimPool
Hub.longest = .05
run, hub, resume, steps = sys.argv[1], sys.argv[2] or None, sys.argv[3] == "resume", int(sys.argv[4])
small = replace(get_profile("tiny"), sft_batch=4, sft_micro_batch=2, max_new_tokens=8, rl_batch=8, rl_micro_batch=4)
if __name__ == "__main__":
    try:
        store = Store(run, small, hub)
        from thinkact_nb import data, sft, sim
        if not store.has("data"): data.make_dataset(18, store.begin("data"), SimPool(0)), store.push("data")
        sft.train_sft(store, 0, resume, steps=steps, every=2, validation=2)
    except UserError as e:
        print(e, file=sys.stderr)
        sys.exit(getattr(e, "status", 2))
'''


@pytest.fixture
def hub():
    yield (served := loopback.serve())
    served.shutdown()


def start(hub, home, run, repo='', resume='', steps=30, **env):
    (script := home/'train.py').write_text(TRAIN, encoding='utf-8')
    env = os.environ | (loopback.client(hub, home) if hub else dict(HF_HUB_OFFLINE='1')) | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'} | env
    return subprocess.Popen([sys.executable, script, str(home/run), repo, resume, str(steps)], env=env, cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8')


def ended(process, status=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err[-3000:]
    return err


def adapter(folder): return (folder/'sft/adapter_model.safetensors').read_bytes()


@pytest.mark.parametrize('kills', [2, pytest.param(5, marks=pytest.mark.long)])
def test_killed_and_resumed_on_fresh_machines_sft_ends_with_the_same_bits(hub, tmp_path, kills):
    ended(start(None, tmp_path, 'whole'))
    draw = random.Random(0)
    killed = []
    machine = 0
    while True:
        process = start(hub, tmp_path, f'machine{machine}', 'tester/run', 'resume')
        if len(killed) < kills:
            left = [draw.randrange(20, 60)]   # requests until the kill: while checkpoints are fetched, trained towards, or pushed
            def watch(method, path):
                left[0] -= 1
                if left[0] == 0:
                    killed.append(f'{method} {path.partition("?")[0]}')
                    process.kill()
            hub.refuse = watch
        else: hub.refuse = None
        process.wait(300)
        machine += 1
        if process.returncode != -signal.SIGKILL: break
    ended(process)
    assert len(killed) == kills and machine == kills + 1, killed
    assert adapter(tmp_path/f'machine{kills}') == adapter(tmp_path/'whole')
    assert hub.repository('tester/run').files['sft/adapter_model.safetensors'] == adapter(tmp_path/'whole')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_ends_without_a_traceback(tmp_path, number):
    process = start(None, tmp_path, 'run', steps=300)
    while not list((tmp_path/'run').glob('sft/checkpoints/checkpoint-2/manifest.json')): time.sleep(.1)
    process.send_signal(number)
    said = ended(process, 128 + number)
    assert 'Traceback' not in said and 'stopped at step ' in said
    step = int(said.rpartition('stopped at step ')[2].split()[0])
    assert (tmp_path/f'run/sft/checkpoints/checkpoint-{step}/manifest.json').exists()


def test_a_planted_pickle_is_not_run(hub, tmp_path):
    import pickle
    class Evil:
        def __reduce__(self): return os.system, (f'touch {tmp_path}/ran',)
    ended(start(hub, tmp_path, 'a', 'tester/run', steps=4))
    files = hub.repository('tester/run').files
    where = 'sft/checkpoints/checkpoint-4/'
    manifest = json.loads(files[where + 'manifest.json'])
    import hashlib
    for name in ('optimizer.pt', 'scheduler.pt', 'rng_state.pth'):
        files[where + name] = pickle.dumps(Evil())
        manifest['files'][name] = dict(size=len(files[where + name]), sha256=hashlib.sha256(files[where + name]).hexdigest())
    files[where + 'manifest.json'] = json.dumps(manifest).encode()
    said = ended(start(hub, tmp_path, 'b', 'tester/run', 'resume', steps=4))
    assert 'holds more than numbers' in said and not (tmp_path/'ran').exists()
    assert adapter(tmp_path/'b') == adapter(tmp_path/'a')   # from the checkpoint before


def test_going_on_with_other_settings_is_refused(tmp_path):
    ended(start(None, tmp_path, 'run', steps=4))
    assert 'was made with steps 4, not 6' in ended(start(None, tmp_path, 'run', resume='resume', steps=6), 2)


def files(folder):
    "What a stage has: numbers to the last bit, a log without the order of its names."
    there = [f for f in folder.glob('*') if f.suffix in ('.safetensors', '.json') and f.name != 'manifest.json']
    return {f.name: json.loads(f.read_text(encoding='utf-8')) if f.suffix == '.json' else f.read_bytes() for f in there}


def lose_the_end(run, stage):
    "As if the machine had been lost after its last checkpoint: what comes after that is not there."
    made = files(run/stage)
    for name in (*made, 'manifest.json'): (run/stage/name).unlink()
    return made


SMALL = dict(sft_batch=4, sft_micro_batch=2, max_new_tokens=8, rl_batch=8, rl_micro_batch=4)


@pytest.mark.parametrize('steps, last', [(9, 4), (3, 3)], ids=['stopped early', 'at the last step'])
def test_sft_that_was_over_is_not_trained_on(tmp_path, monkeypatch, steps, last):
    "Guard: lost between early stopping and the writing of the adapter, a training went on, and another checkpoint became the adapter."
    from dataclasses import replace
    from thinkact_nb import data, sft
    from thinkact_nb.env import get_profile
    from thinkact_nb.pool import SimPool
    from thinkact_nb.store import Store
    monkeypatch.setattr(sft, 'token_losses', lambda *_: dict(think=(1., 1), action=(1., 1)))   # never better than at first
    store = Store(tmp_path/'run', replace(get_profile('tiny'), **SMALL))
    data.make_dataset(18, store.begin('data'), SimPool(0))
    store.push('data')
    log = sft.train_sft(store, steps=steps, every=1, validation=2)
    made = lose_the_end(tmp_path/'run', 'sft')
    again = sft.train_sft(store, resume=True, steps=steps, every=1, validation=2)
    assert log.step.max() == again.step.max() == last
    assert files(tmp_path/'run'/'sft') == made and 'adapter_model.safetensors' in made


def test_rl_that_was_over_is_not_trained_on(tmp_path, monkeypatch):
    "Guard: as above; the ledger and the value head too."
    from dataclasses import replace
    from thinkact_nb import algorithms, trainer
    from thinkact_nb.env import get_profile
    from thinkact_nb.pool import SimPool
    from thinkact_nb.store import Store
    monkeypatch.setattr(algorithms, 'SAVE_EVERY', 1)
    store = Store(tmp_path/'run', replace(get_profile('tiny'), **SMALL), shipped=True)
    log = trainer.train_rl(store, SimPool(0), updates=1)
    made = lose_the_end(tmp_path/'run', 'rl/ppo')
    again = trainer.train_rl(store, SimPool(0), resume=True, updates=1)
    assert len(log) == len(again) == 1
    written = files(tmp_path/'run'/'rl/ppo')
    assert all(written[name] == made[name] for name in ('adapter_model.safetensors', 'value_head.safetensors'))
    assert len(trainer.train_rl(store, SimPool(0), resume=True, updates=2)) == 2   # one that is made longer goes on
