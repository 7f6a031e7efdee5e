"The install cell, what a machine must have, and the shared cells of the notebooks. The whole of it is `make test-colab`."
import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pandas as pd
import pytest
import torch
from packaging.requirements import Requirement
from thinkact_nb import colab, env, evaluate, family, model, sim
from thinkact_nb.env import PYBULLET, UserError, get_profile
from thinkact_nb.pool import SimPool
from thinkact_nb.files import damage
from thinkact_nb.store import SHIPPED, Store

ROOT = Path(__file__).parent.parent
SYSTEMS = [dict(sys_platform=system, platform_machine=machine, python_version=f'3.{minor}') for minor in range(10, 15)
           for system, machines in dict(linux=('x86_64', 'aarch64'), darwin=('x86_64', 'arm64'), win32=('AMD64', 'ARM64')).items() for machine in machines]


@pytest.fixture
def asked():
    "What settings.ini asks for, of PyBullet."
    lines = ConfigParser()
    lines.read(ROOT/'settings.ini', encoding='utf-8')
    return [Requirement(line) for line in lines['DEFAULT']['requirements'].splitlines() if line.startswith('pybullet')]


def test_every_machine_gets_one_pybullet_and_a_wheel_where_there_is_one(asked):
    "Guard: two distributions hold the module `pybullet`, and on Python 3.12 and 3.13 the official one was built for minutes."
    for here in SYSTEMS:
        found = [r.name for r in asked if r.marker.evaluate(here)]
        minor, linux_wheel = int(here['python_version'][2:]), here['sys_platform'] == 'linux' and here['platform_machine'] == 'x86_64'
        assert len(found) == 1, (here, found)
        if linux_wheel: assert found == ['pybullet-arm64' if minor in (12, 13) else 'pybullet'], here
    assert {r.name for r in asked} == set(PYBULLET)
    assert str(next(r for r in asked if r.name == 'pybullet-arm64').specifier) == '==3.2.8'


@pytest.mark.parametrize('mine', PYBULLET)
def test_a_machine_that_has_a_pybullet_keeps_it(mine, monkeypatch):
    "Guard: pip puts one distribution's files over the other's, and removing either takes the module away."
    monkeypatch.setattr(colab.importlib.metadata, 'requires', lambda name: ['pybullet-arm64==3.2.8' if mine == 'pybullet' else 'pybullet>=3.2.7', 'trl>=1.16'])
    assert colab.wanted({mine: '3.2.8', 'trl': '1.0'}) == ['trl>=1.16']
    assert len(colab.wanted({'trl': '1.0'})) == 2
    monkeypatch.setattr(colab.importlib.metadata, 'requires', lambda name: [f'{mine}>=3.2.7'])
    assert colab.wanted({mine: '3.2.5'}) == [f'{mine}>=3.2.7']  # an old one of the same name is asked for as before


@pytest.mark.parametrize('there', [('pybullet',), ('pybullet-arm64',), PYBULLET, ()])
def test_receipts_name_whichever_pybullet_is_there(there, monkeypatch):
    "Guard: with pybullet-arm64 installed, `thinkact env` and receipts said that PyBullet was missing."
    monkeypatch.setattr(env, '_version', lambda name: '3.2.8' if name in there else None)
    found = {name: version for name, version in env.hardware()['versions'].items() if 'bullet' in name}
    assert found == (dict.fromkeys(there, '3.2.8') or {'pybullet': None})


def test_no_command_of_the_project_puts_one_pybullet_over_the_other():
    "Guard: `make bench` installed panda-gym with what it depends on, the official pybullet."
    pip = [line for line in (ROOT/'Makefile').read_text(encoding='utf-8').splitlines() if 'pip install' in line and 'panda-gym' in line]
    assert pip and all('--no-deps' in line for line in pip)


@pytest.fixture
def machine(monkeypatch):
    "As much of Colab as `install` asks: what is installed before and after, and what pip was told."
    told, has = [], [{'torch': '2.11.0+cu130', 'trl': '1.0', 'torchao': '0.10.0'}, {'torch': '2.11.0+cu130', 'trl': '1.16.0', 'pybullet-arm64': '3.2.8'}]
    monkeypatch.setattr(colab, 'installed', lambda: has.pop(0))
    monkeypatch.setattr(colab, 'pip', lambda *words: told.append(words))
    monkeypatch.setattr(colab, 'wanted', lambda *_: ['pybullet-arm64==3.2.8', 'trl>=1.16'])
    monkeypatch.setattr(colab, 'other_runtime', lambda *_: None)
    monkeypatch.setenv('PYTORCH_CUDA_ALLOC_CONF', '')
    return told


def test_the_install_cell_asks_pip_twice_and_says_what_it_did(machine, capsys):
    colab.install()
    assert [words[0] for words in machine] == ['install', 'uninstall'] and machine[0][-2:] == ('pybullet-arm64==3.2.8', 'trl>=1.16') and machine[1][-1] == 'torchao'
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith('ready after 0 s: physics by pybullet-arm64 3.2.8; 1 packages are new; replaced: torchao 0.10.0 → removed, trl 1.0 → 1.16.0;')
    assert not [line for line in said if 'build' in line]


def test_a_build_is_announced(machine, capsys, monkeypatch):
    monkeypatch.setattr(colab, 'must_build', lambda lines: True)
    colab.install()
    assert capsys.readouterr().out.startswith('no wheel of PyBullet for this machine: pip builds it')


@pytest.mark.parametrize('torch, python, expected', [
    ('2.11.0+cu128', '3.13', True), ('2.11.0+cu130', '3.13', True), ('2.12.0+cu130', '3.13', True), ('2.15.0+cu132', '3.13', True), ('2.14.1', '3.13', True),
    ('2.12.0+cu129', '3.13', False), ('2.10.0+cu128', '3.13', False), ('2.11.0+cu128', '3.12', False), ('2.15.0+cu130', '3.14', False), ('2.1.0', '3.13', False)])
def test_a_runtime_that_is_expected_next_is_no_surprise(torch, python, expected):
    said = colab.other_runtime({'torch': torch}, python)
    assert (said is None) == expected
    assert expected or f'Python {python} and torch {torch}' in said and 'Runtime version' in said
    assert 'torch none' in colab.other_runtime({}, python)


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
    assert {'torch', 'trl', 'optuna'} <= names and len(names & set(PYBULLET)) == 1 and not names & {'nbdev', 'ray', 'ipywidgets', 'pytest'}


def test_each_notebook_has_the_same_install_cell_and_a_changed_one_is_found():
    sys.path.insert(0, str(ROOT/'tools'))
    import house, links
    from nbdev.config import get_config
    cfg = get_config(cfg_name='settings.ini', path=ROOT)
    for path in house.pages():
        text = path.read_text(encoding='utf-8')
        same, shared = links.with_shared(text, house.name_of(path), cfg)
        assert same == text and shared.count(links.INSTALL) == 1, path.name
        changed = text.replace('from thinkact_nb.colab import install; install()', 'import thinkact_nb')
        assert links.with_shared(changed, house.name_of(path), cfg)[0] != changed


class Gpu:
    "As much of torch.cuda as is asked."
    def __init__(self, total, free, major=7):
        self.total = total
        self.free = free
        self.properties = type('P', (), dict(name='T4', total_memory=total, major=major))
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
    monkeypatch.setattr(family.shutil, 'disk_usage', lambda _: type('D', (), dict(free=3e9)))
    with pytest.raises(UserError, match='takes 1[0-9] GB of disk and 3 are free'): family.check_machine(get_profile('t4'))
    monkeypatch.setattr(family.shutil, 'disk_usage', lambda _: type('D', (), dict(free=90e9)))
    family.check_machine(get_profile('t4'))


def test_a_notebook_shows_one_line_of_a_user_error():
    code = 'from thinkact_nb.env import get_profile; get_profile("huge")'
    clean = {k: v for k, v in os.environ.items() if k != 'VIRTUAL_ENV'} | dict(PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, '-m', 'IPython', '--colors=NoColor', '-c', code], capture_output=True, text=True, env=clean, encoding='utf-8')
    assert (done.stdout + done.stderr).strip() == "unknown profile 'huge': choose from tiny, t4, large, gemma4"


def test_shipped_adapters_are_whole_and_say_what_the_committed_table_says(tmp_path):
    store = Store(tmp_path/'run', get_profile('tiny'), shipped=True)
    table = pd.read_parquet(SHIPPED/'eval'/'episodes.parquet')
    rows = table[table.arm == 'ppo'].head(4)
    for stage in ('sft', 'rl/ppo'):
        assert damage(SHIPPED/stage) is None and str(ROOT) not in (SHIPPED/stage/'adapter_config.json').read_text(encoding='utf-8')
        with pytest.raises(UserError, match='run `thinkact'): Store(tmp_path/'run').require(stage, 'adapter_config.json')
    scenes = [sim.make_scene(*key) for key in rows[['task', 'level', 'seed']].itertuples(index=False)]
    done = evaluate.act(store, 'ppo', scenes, SimPool(0))
    assert done.output.tolist() == rows.output.tolist() and done.success.tolist() == rows.success.tolist()
    assert not (store.run/'rl').exists()
