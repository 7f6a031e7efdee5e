"The wheel that is built once, what a machine must have, and the shared cells of the notebooks. The whole of it is `make test-colab`."
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import hub
import pandas as pd
import pytest
import torch
from thinkact_nb import colab, evaluate, model, shapes, sim
from thinkact_nb.env import UserError, get_profile
from thinkact_nb.pool import SimPool
from thinkact_nb.files import damage
from thinkact_nb.store import SHIPPED, Store

ROOT = Path(__file__).parent.parent
KEPT = '''
import sys
from pathlib import Path
from thinkact_nb import colab
def build(folder):
    wheel = folder / sys.argv[1]
    wheel.write_bytes(b"built")
    return wheel
colab.build = build
folder = Path(sys.argv[2]); folder.mkdir()
print(colab.pybullet_wheel(folder, Path(sys.argv[3])).read_bytes())
'''
BUILT = hashlib.sha256(b'built').hexdigest()


@pytest.fixture
def wheel_name():
    tag = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    name = f'pybullet-3.2.7-{tag}-{tag}-linux_x86_64.whl'
    return name if colab.fits(name) else name.replace('x86_64', os.uname().machine)


def fetched(here, folder, name, hub_, token='hf_good', machine='one', drive='none', **env):
    "What a machine says and gets that asks for the wheel; each has a cache folder of its own."
    env = os.environ | hub.client(hub_, here/'hf', token) | dict(PYTHONPATH=str(ROOT), XDG_CACHE_HOME=str(here/machine)) | env
    done = subprocess.run([sys.executable, '-c', KEPT, name, folder, here/drive], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_is_built_once_and_comes_back_checked(tmp_path, wheel_name):
    "Guard: what this machine built, it takes from the repository; another one does when its user vouches for it."
    server = hub.serve()
    first = fetched(tmp_path, tmp_path/'a', wheel_name, server)
    assert 'building PyBullet' in first and 'kept for the next notebook in tester/thinkact-wheels on the Hub' in first and f'THINKACT_WHEEL = {BUILT}' in first
    assert server.repository('tester/thinkact-wheels').private
    second = fetched(tmp_path, tmp_path/'b', wheel_name, server)
    assert "PyBullet comes from tester/thinkact-wheels on the Hub, checked by this machine's record" in second and 'building' not in second and "b'built'" in second
    third = fetched(tmp_path, tmp_path/'c', wheel_name, server, machine='another', THINKACT_WHEEL=BUILT)
    assert 'checked by your secret THINKACT_WHEEL' in third and 'building' not in third


def test_a_wheel_that_nobody_vouches_for_is_not_even_fetched(tmp_path, wheel_name):
    "Guard: a wheel with its SHA-256 beside it in the same repository passed as checked, and what was in it ran at the next start of Python."
    server = hub.serve()
    server.repositories['model', 'tester/thinkact-wheels'] = planted = hub.Repository(True)
    planted.commit('planted', {wheel_name: b'evil', f'{wheel_name}.sha256': hashlib.sha256(b'evil').hexdigest().encode()})
    said = fetched(tmp_path, tmp_path/'a', wheel_name, server)
    assert 'no record of yours names it' in said and "b'built'" in said and 'comes from' not in said
    assert not [path for _, path, _ in server.log if '/resolve/' in path]
    assert planted.files[wheel_name] == b'evil' and 'remove the repository' in said   # nor written over


def test_a_wheel_that_is_not_what_the_hub_says_is_built_anew(tmp_path, wheel_name, monkeypatch):
    "Guard: the hash that the Hub tells is compared, and then the wheel itself."
    server = hub.serve()
    fetched(tmp_path, tmp_path/'a', wheel_name, server)
    entry = hub.Repository.entry
    monkeypatch.setattr(hub.Repository, 'entry', lambda self, path, data: entry(self, path, b'built' if path.endswith('.whl') else data) | dict(size=len(data)))
    server.repository('tester/thinkact-wheels').files[wheel_name] = b'other'
    again = fetched(tmp_path, tmp_path/'b', wheel_name, server)
    assert 'comes from' not in again and "b'built'" in again


def test_a_public_repository_of_wheels_is_neither_read_nor_written(tmp_path, wheel_name):
    "Guard: an existing public repository was used without a word."
    server = hub.serve()
    server.repositories['model', 'tester/thinkact-wheels'] = public = hub.Repository(False)
    public.commit('planted', {wheel_name: b'built'})
    said = fetched(tmp_path, tmp_path/'a', wheel_name, server, THINKACT_WHEEL=BUILT)
    assert 'tester/thinkact-wheels is public' in said and 'building PyBullet' in said and len(public.commits) == 2


def test_a_wheel_on_your_drive_comes_with_its_record(tmp_path, wheel_name):
    "Guard: Drive keeps wheel and record, and its record vouches for the same wheel on the Hub."
    server, drive = hub.serve(), tmp_path/'drive'
    drive.mkdir()
    first = fetched(tmp_path, tmp_path/'a', wheel_name, server, drive='drive')
    assert 'kept for the next notebook in Google Drive' in first
    second = fetched(tmp_path, tmp_path/'b', wheel_name, server, machine='another', drive='drive')
    assert 'PyBullet comes from Google Drive, checked by Google Drive' in second and 'building' not in second
    (drive/'thinkact-wheels'/wheel_name).write_bytes(b'cut short')
    third = fetched(tmp_path, tmp_path/'c', wheel_name, server, machine='a third', drive='drive')
    assert 'PyBullet comes from tester/thinkact-wheels on the Hub, checked by Google Drive' in third and "b'built'" in third


def test_without_a_login_or_with_a_hub_that_refuses_the_wheel_is_built(tmp_path, wheel_name):
    assert 'To keep it for the next notebook, mount Google Drive or log in' in fetched(tmp_path, tmp_path/'a', wheel_name, hub.serve(), token='')
    refusing = hub.serve(refuse=lambda method, path: 503 if 'thinkact-wheels' in path or path.endswith('create') else None)
    assert "b'built'" in fetched(tmp_path, tmp_path/'b', wheel_name, refusing)


def test_a_wheel_for_another_python_does_not_fit(wheel_name):
    assert not colab.fits(wheel_name.replace(f'cp{sys.version_info[0]}{sys.version_info[1]}', 'cp39'))
    assert not colab.fits(wheel_name.replace(os.uname().machine, 'riscv'))


def test_everything_is_held_but_what_may_change():
    here = colab.installed()
    rules = dict(rule.split('==') for rule in colab.held(here))
    assert rules['torch'] == here['torch'] and rules['numpy'] == here['numpy']
    assert not rules.keys() & {*colab.MAY_CHANGE, 'thinkact-nb'}
    assert rules.keys() | {*colab.MAY_CHANGE, 'thinkact-nb'} >= here.keys()


def test_a_package_that_peft_refuses_is_taken_away(monkeypatch):
    "Guard: Colab's torchao is older than PEFT accepts, which then raises at every layer that is not quantized."
    from peft import import_utils
    monkeypatch.setattr(import_utils.importlib.util, 'find_spec', lambda name: True)
    ask = import_utils.is_torchao_available.__wrapped__
    for version in ('0.10.0', '0.15.2', colab.TOO_OLD['torchao'], '0.18.0'):
        monkeypatch.setattr(import_utils.importlib_metadata, 'version', lambda name: version)
        refused = colab.refused({'torchao': version, 'numpy': '2.1.3'}) == ['torchao']
        if refused:
            with pytest.raises(ImportError, match='incompatible version of torchao'): ask()
        else: assert ask()
    assert not colab.refused({'numpy': '2.1.3'})


def test_what_the_install_cell_installs_is_what_settings_say():
    names = {r.split('>')[0].split('<')[0].split('=')[0].split('!')[0] for r in colab.requirements()}
    assert {'torch', 'trl', 'optuna', 'pybullet'} <= names and not names & {'nbdev', 'ray', 'ipywidgets', 'pytest'}


def test_each_notebook_has_the_same_install_cell_and_a_changed_one_is_found():
    sys.path.insert(0, str(ROOT/'tools'))
    import links
    from nbdev.config import get_config
    cfg = get_config(cfg_name='settings.ini', path=ROOT)
    for path in sorted((ROOT/'nbs').glob('[0-9]*.ipynb')):
        text = path.read_text(encoding='utf-8')
        assert links.with_shared(text, cfg) == (text, 1), path.name
        changed = text.replace('from thinkact_nb.colab import install; install()', 'import thinkact_nb')
        assert links.with_shared(changed, cfg)[0] != changed


class Gpu:
    "As much of torch.cuda as is asked."
    def __init__(self, total, free, major=7): self.total, self.free, self.properties = total, free, type('P', (), dict(name='T4', total_memory=total, major=major))
    def put(self, monkeypatch):
        for name, value in dict(is_available=lambda: bool(self.total), mem_get_info=lambda: (self.free, self.total), memory_reserved=lambda: 0, get_device_properties=lambda _: self.properties).items():
            monkeypatch.setattr(torch.cuda, name, value)


@pytest.mark.parametrize('gpu, profile, says', [
    (Gpu(0, 0), 't4', 'Runtime → Change runtime type → T4 GPU'),
    (Gpu(8e9, 8e9), 't4', 'needs a GPU with 14 GB and this one has 8.0: take a smaller profile'),
    (Gpu(25e9, 25e9), 'large', "bfloat16, which this GPU has not got: take the profile 't4'"),
    (Gpu(15.8e9, 9e9), 't4', 'something else holds 6.8 of the GPU'),
])
def test_a_machine_that_cannot_hold_the_model_is_told_so(monkeypatch, gpu, profile, says):
    gpu.put(monkeypatch)
    with pytest.raises(UserError, match=says.replace('.', r'\.')): model.load_base(get_profile(profile))


def test_a_full_disk_is_seen_before_the_download(monkeypatch):
    Gpu(15.8e9, 15.5e9).put(monkeypatch)
    monkeypatch.setattr(shapes.shutil, 'disk_usage', lambda _: type('D', (), dict(free=3e9)))
    with pytest.raises(UserError, match='takes 1[0-9] GB of disk and 3 are free'): shapes.check_machine(get_profile('t4'))
    monkeypatch.setattr(shapes.shutil, 'disk_usage', lambda _: type('D', (), dict(free=90e9)))
    shapes.check_machine(get_profile('t4'))


def test_a_notebook_shows_one_line_of_a_user_error():
    code = 'from thinkact_nb.env import get_profile; get_profile("huge")'
    env = {k: v for k, v in os.environ.items() if k != 'VIRTUAL_ENV'} | dict(PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, '-m', 'IPython', '--colors=NoColor', '-c', code], capture_output=True, text=True, env=env)
    assert (done.stdout + done.stderr).strip() == "unknown profile 'huge': choose from tiny, t4, large, gemma4"


def test_shipped_adapters_are_whole_and_say_what_the_committed_table_says(tmp_path):
    store = Store(tmp_path/'run', get_profile('tiny'), shipped=True)
    table = pd.read_parquet(SHIPPED/'eval'/'episodes.parquet')
    rows = table[table.arm == 'ppo'].head(4)
    for stage in ('sft', 'rl/ppo'):
        assert damage(SHIPPED/stage) is None and str(ROOT) not in (SHIPPED/stage/'adapter_config.json').read_text()
        with pytest.raises(UserError, match='run `thinkact'): Store(tmp_path/'run').require(stage, 'adapter_config.json')
    scenes = [sim.make_scene(*key) for key in rows[['task', 'level', 'seed']].itertuples(index=False)]
    done = evaluate.act(store, 'ppo', scenes, SimPool(0))
    assert done.output.tolist() == rows.output.tolist() and done.success.tolist() == rows.success.tolist()
    assert not (store.run/'rl').exists()
