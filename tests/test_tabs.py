"One run across tabs of Colab: the repository is asked for at the top and remembered, what is missing names its notebook, and nothing long begins by itself."
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from thinkact_nb import env
from thinkact_nb import store as library
from thinkact_nb.env import UserError, get_profile
from thinkact_nb.report import findings
from thinkact_nb.store import PAGES, SHIPPED, Store, remembered

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT/'tools'))
import house

NOTEBOOKS = {house.name_of(path): [''.join(c['source']) for c in house.cells(path) if c['cell_type'] == 'code'] for path in house.pages()}


def test_what_makes_part_of_a_run_asks_for_hub_at_the_top():
    "Guard: HUB stood in the last section, so who began at the top lost what the page made."
    asks = {name: next((i for i, cell in enumerate(cells) if '\nHUB = "" #@param' in cell), None) for name, cells in NOTEBOOKS.items()}
    named = {name: next((i for i, cell in enumerate(cells) if 'remembered(HUB)' in cell and 'store = ' in cell), None) for name, cells in NOTEBOOKS.items()}
    runs = {name for name, place in named.items() if place is not None}
    assert {'02_data', '04_sft', '06_ppo', '07_eval', '08_tune', '09_report'} <= runs
    for name in runs: assert asks[name] == 1 < named[name], name
    assert all('lost when the tab closes' in NOTEBOOKS[name][1] for name in runs)


def test_nothing_that_takes_longer_than_five_minutes_begins_by_itself():
    "Guard: Run all of 04 began 1 to 1½ hours of training."
    long = re.compile(r'train_sft\(store|train_rl\(store, pool, resume|\.run\(1, pool\)|library\.evaluate\(store, \["sft", "ppo"\]')
    found = {name: cell for name, cells in NOTEBOOKS.items() for cell in cells if cell.startswith('#| eval: false') and long.search(cell)}
    assert set(found) == {'04_sft', '06_ppo', '07_eval', '08_tune'}
    for name, cell in found.items():
        switch = 'EVALUATE' if name == '07_eval' else 'TRAIN'
        assert re.search(rf'(?m)^if .*\b{switch}\b', cell) and re.search(rf'(?m)^{switch} = False #@param', NOTEBOOKS[name][1]), name
        assert re.search(r'minutes|hours', NOTEBOOKS[name][1])


def test_a_form_is_filled_in_as_a_learner_would():
    "Guard: `make test-tabs` would run each page without a repository and without training, and find nothing."
    from run_all import LENT, cells, needed
    filled = cells(NOTEBOOKS['04_sft'][1], HUB='you/robot', TRAIN=True)
    assert '\nHUB = "you/robot" #@param' in filled and '\nTRAIN = True #@param' in filled and cells(NOTEBOOKS['02_data'][1]) == NOTEBOOKS['02_data'][1]
    assert [needed(cell) for cell in ('#| export\nx = 1', '#| eval: false\nx', 'import os', '#| code-fold: true\nfrom a import b', 'x = 1')] == [True] * 4 + [False]
    assert LENT.search("no episodes in run, so those of the stand-in's demo run") and not LENT.search("SFT adapter: none in /tmp/x/run, so the stand-in's that comes with thinkact_nb")


def test_a_missing_stage_names_its_notebook_with_a_link_that_is_its_badge(tmp_path):
    store = Store(tmp_path/'run', get_profile('tiny'))
    for stage, page in PAGES.items():
        with pytest.raises(UserError) as raised: store.require(stage, 'anything')
        [link] = re.findall(r'https://colab\S+\.ipynb', str(raised.value))
        badge = ''.join(json.loads((ROOT/'nbs'/f'{page}.ipynb').read_text(encoding='utf-8'))['cells'][0]['source'])
        assert f'href="{link}"' in badge and 'run `thinkact ' in str(raised.value)


def test_the_repository_is_remembered_from_drive_and_before_it_from_a_secret(tmp_path, monkeypatch):
    assert remembered('', tmp_path/'no drive') == ''
    assert remembered('you/robot', tmp_path/'no drive') == 'you/robot' and not (tmp_path/'no drive').exists()
    assert remembered('you/robot', tmp_path) == remembered('', tmp_path) == 'you/robot'
    colab = SimpleNamespace(userdata=SimpleNamespace(get={'THINKACT_HUB': 'you/other'}.__getitem__))
    monkeypatch.setitem(sys.modules, 'google.colab', colab)
    assert remembered('', tmp_path) == 'you/other' and remembered('you/robot', tmp_path) == 'you/robot'
    colab.userdata.get = {}.__getitem__  # no such secret, or no access to it
    assert remembered('', tmp_path) == 'you/robot'


def test_on_colab_a_folder_that_goes_with_the_machine_says_so_once(tmp_path, monkeypatch, capfd):
    "Guard: what a tab made was gone, and nothing had said that it would be."
    monkeypatch.setattr(library.tempfile, 'gettempdir', lambda: str(tmp_path/'lessons'))
    env.say.cache_clear()
    Store(tmp_path/'here', get_profile('tiny'))
    assert capfd.readouterr().err == ''  # no Colab
    monkeypatch.setenv('COLAB_RELEASE_TAG', 'release-colab')
    for _ in range(2): Store(tmp_path/'run', get_profile('tiny'))
    said = capfd.readouterr().err
    assert said.count('\n') == 1 and 'goes with it when the tab is closed' in said and 'HUB' in said
    Store(tmp_path/'lessons'/'run', get_profile('tiny'))
    monkeypatch.setattr(library, 'DRIVE', str(tmp_path/'drive'))
    monkeypatch.setattr(library.os.path, 'ismount', lambda path: True)
    Store(tmp_path/'drive'/'run', get_profile('tiny'))
    assert capfd.readouterr().err == ''


def test_a_page_that_did_not_train_shows_what_comes_with_the_package_and_says_so(tmp_path, capfd):
    env.say.cache_clear()
    store = Store(tmp_path/'run', get_profile('t4'))
    assert store.borrow('sft', 'log.json') == SHIPPED/'sft' and "of the stand-in's demo run" in capfd.readouterr().err
    (store.path('sft')/'log.json').write_text('[]', encoding='utf-8')
    assert store.borrow('sft', 'log.json') == store.run/'sft' and capfd.readouterr().err == ''


def test_a_report_of_ones_own_episodes_shows_no_log_of_the_demo(tmp_path):
    "Guard: on a fresh machine the episodes came from the Hub, and beside them stood the training and the sampled rates of the stand-in's demo run."
    store = Store(tmp_path/'run', get_profile('tiny'), shipped=True)
    assert set(findings(store)['training']) == {'sft', 'ppo', 'rft'} and findings(store)['decodings']  # all of it is the demo's
    shutil.copytree(SHIPPED/'eval', store.run/'eval')
    found = findings(store)
    assert (found['training'], found['decodings'], found['costs']) == ({'sft': []}, [], [])
