"Rejection sampling keeps what is good, goes on where it was cut off, on another machine too, and tells its rounds apart."
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT/'tests')]
import hub as loopback
from thinkact_nb import cli, rft
from thinkact_nb.data import make_dataset
from thinkact_nb.env import UserError, get_profile
from thinkact_nb.family import load_processor
from thinkact_nb.language import claims, expert, think_of
from thinkact_nb.pool import SimPool, run_episode
from thinkact_nb.report import findings
from thinkact_nb.reward import judge
from thinkact_nb.sim import SceneKey, make_scene, parse_output
from thinkact_nb.store import SHIPPED, Store

SMALL = replace(get_profile('tiny'), sft_batch=4, sft_micro_batch=4, rl_batch=8, max_new_tokens=60)
SET = ('--set', 'sft_batch=4', 'sft_micro_batch=4', 'rl_batch=8', 'max_new_tokens=60')
SHORT = dict(steps=1, every=1, validation=2)
PLACES = dict(tasks=('put_on',))


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
    "A run with demonstrations, the shipped SFT, and a first round of eight scenes in two parts."
    store = Store(tmp_path_factory.mktemp('rft')/'run', SMALL)
    make_dataset(4, store.begin('data'), SimPool(0), ('put_on',))
    store.push('data')
    shutil.copytree(SHIPPED/'sft', store.run/'sft')
    drawn = rft.drawn_with(store, scenes=8, **PLACES)
    rft.train_rft(store, SimPool(0), drawn, **SHORT)
    return store


@pytest.fixture
def store(begun, tmp_path): return Store(shutil.copytree(begun.run, tmp_path/'run'), SMALL)


def rows(store, part): return pq.read_table(store.run/part/'train.parquet').to_pylist()


class Counting(SimPool):
    "A pool that stops the work after some rollouts."
    def __init__(self, limit): super().__init__(0); self.limit = limit

    def run(self, *asked):
        self.limit -= 1
        if self.limit < 0: raise KeyboardInterrupt
        return super().run(*asked)


def test_what_is_kept_solves_its_scene_and_claims_nothing_false(begun):
    parts = list(rft.part_names(begun.made('rl/rft')))
    kept = [row for part in parts for row in rows(begun, part)]
    earned = rft.yields(begun, parts)
    assert len(parts) == 2 and 0 < len(kept) == earned.kept.sum() <= 8 and earned.texts.sum() == 32 and (earned.good <= earned.succeeded).all()
    for row in kept:
        scene, said = make_scene(*SceneKey(row['task'], row['level'], row['seed'])), parse_output(row['output'])
        assert run_episode((scene, said.program)).success and all(claim.true for claim in claims(said.think, scene)) and row['instruction'] == scene.instruction


def test_a_text_that_reached_its_goal_by_luck_is_not_kept():
    "Guard: a text with a false claim in its think, which succeeded all the same, taught that claim."
    scene = make_scene('put_on', 'L0', 3)
    said = think_of(scene)
    lucky = expert(scene).replace(said, re.sub(r'<loc\d\d>', '<loc01>', said, count=1))
    failed = expert(scene).replace('pick <loc', 'pick <loc0', 1)
    true, false, none = judge([scene] * 3, [expert(scene), lucky, failed], SimPool(0), load_processor(SMALL).tokenizer)
    assert true.success and false.success and not none.success
    assert [rft.is_good(episode) for episode in (true, false, none)] == [True, False, False]
    image = np.zeros((8, 8, 3), np.uint8)
    assert rft.own_row(scene, image, [none, false]) is None and rft.own_row(scene, image, [none, false, true])['output'] == expert(scene)


def test_cut_off_between_parts_it_draws_the_same(begun, store):
    drawn = rft.drawn_with(store, scenes=8, **PLACES)
    shutil.rmtree(store.run/'own')
    with pytest.raises(KeyboardInterrupt): rft.draw(store, Counting(1), drawn)
    assert [store.has(part) for part in rft.part_names(drawn)] == [True, False]
    parts = rft.draw(store, SimPool(0), drawn, resume=True)
    assert [rows(store, part) for part in parts] == [rows(begun, part) for part in parts]
    adapter = lambda run: (run/'rl/rft/adapter_model.safetensors').read_bytes()
    shutil.rmtree(store.run/'rl')
    rft.train_rft(store, SimPool(0), drawn, resume=True, **SHORT)
    assert adapter(store.run) == adapter(begun.run)


def test_other_texts_are_not_taken_for_those_asked_for(store):
    with pytest.raises(UserError, match='was made with draw_seed 0, not 1'): rft.draw(store, None, rft.drawn_with(store, scenes=8, seed=1, **PLACES), resume=True)
    folder = store.run/'own/1-000000'
    (folder/'train.parquet').write_bytes(b'cut off')
    with pytest.raises(UserError, match='7 bytes of train.parquet, .*thinkact rft --run'): rft.beside_of(store, store.made('rl/rft'))


def test_a_second_round_begins_where_the_first_ended_and_learns_both(store):
    from thinkact_nb.model import fingerprint
    drawn = rft.drawn_with(store, 2, scenes=4, **PLACES)
    assert drawn['drew'] == fingerprint(SMALL, store.run/'rl/rft') != rft.drawn_with(store, 1, scenes=4, **PLACES)['drew']
    (store.begin('own/2-000000')/'drawn.json').write_text(json.dumps([dict(task='put_on', texts=16, succeeded=1, good=1, kept=1)]), encoding='utf-8')
    shutil.copy(store.run/'own/1-000000/train.parquet', store.run/'own/2-000000')
    store.push('own/2-000000', settings=drawn)
    rft.train_rft(store, SimPool(0), drawn, resume=True, **SHORT)
    assert store.trained('rft', 'rft2') == ['rft', 'rft2'] and [file.parent.name for file in rft.beside_of(store, drawn).files] == ['1-000000', '1-000004', '2-000000']
    first, second = (store.made(f'rl/{name}') for name in ('rft', 'rft2'))
    assert (first['round'], second['round']) == (1, 2) and first['sft'] == second['sft'] and first['demonstrations'] == second['demonstrations']


def test_if_nothing_is_good_that_is_said(store):
    for part in ('own/1-000000', 'own/1-000004'):
        pq.write_table(pq.read_table(store.run/part/'train.parquet').slice(0, 0), store.begin(part)/'train.parquet')
        store.push(part, settings=store.made('rl/rft'))
    with pytest.raises(UserError, match='nothing to learn'): rft.beside_of(store, store.made('rl/rft'))


def test_another_machine_takes_the_parts_that_were_drawn(store, tmp_path):
    served, other = loopback.serve(), tmp_path/'other'
    code = f'''
from thinkact_nb import hub, rft
from thinkact_nb.store import Store
first = Store({str(store.run)!r}, hub="tester/robot")
for stage in ("data", "sft", *rft.part_names(first.made("rl/rft"))): first.push(stage)
first.finish()
hub.connect.cache_clear()
second = Store({str(other)!r}, hub="tester/robot")
rft.draw(second, None, rft.drawn_with(second, scenes=8, tasks=("put_on",)), resume=True)  # no pool: nothing is drawn
'''
    env = os.environ | loopback.client(served, tmp_path) | dict(PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, encoding='utf-8', timeout=200)
    served.shutdown()
    assert done.returncode == 0, done.stderr[-3000:]
    parts = list(rft.part_names(store.made('rl/rft')))
    assert [rows(Store(other), part) for part in parts] == [rows(store, part) for part in parts]


def test_the_command_skips_what_is_complete_and_the_report_has_its_arm(store, capsys):
    run = ['--run', str(store.run), '--tasks', 'put_on', *SET]
    asked = ['rft', *run, '--n', '8', '--steps', '1', '--every', '1', '--resume']
    shutil.rmtree(store.run/'rl')
    cli.main(asked)
    told = capsys.readouterr().out
    assert 'of 32 texts' in told and 'learned' in told
    cli.main(asked)
    assert 'complete, skipped' in capsys.readouterr().out
    with pytest.raises(SystemExit): cli.main([*asked, '--texts', '3'])
    assert 'made with texts 4, not 3' in capsys.readouterr().err
    assert cli.Act(task='put_on').best(store) == 'rft'
    cli.main(['eval', *run, '--arms', 'sft', 'rft', '--n', '2'])
    found = findings(store)
    assert [(c['a'], c['b']) for c in found['comparisons']] == [('sft', 'rft')] and 'rft' in found['training']
    assert pd.read_parquet(store.run/'eval/episodes.parquet').arm.unique().tolist() == ['sft', 'rft']
