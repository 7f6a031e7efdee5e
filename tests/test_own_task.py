"A task of one's own: the one of page tasks thinks what is true, is repaired, teaches turns, and is told to the critic."
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thinkact_nb import data, language, share, sim, tasks
from thinkact_nb.critic import PRIVILEGED, ValueHead, due, facts, facts_width
from thinkact_nb.env import UserError
from thinkact_nb.loop import DISTURBANCES, budget, expert_turn, play, turn_claims
from thinkact_nb.pool import SimPool
from thinkact_nb.turn_rl import STATE, turn_facts
from thinkact_nb.turns import make_turns

PAGE = json.loads((Path(__file__).parent.parent / 'nbs/world/tasks.ipynb').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def scenes():
    "Six scenes of `line_up`, which the cell of page world/tasks registers after everything was imported."
    cell, = (''.join(c['source']) for c in PAGE['cells'] if c['id'] == 'c8e3bf4e')
    exec(cell, vars(sim) | vars(tasks))
    yield [sim.make_scene('line_up', 'L0', seed) for seed in range(6)]
    del sim.TASKS['line_up']


def test_its_think_says_what_is_done(scenes):
    "Guard: a think that did not know the task said that the block goes onto its neighbour, and no check saw it."
    for scene in scenes:
        block, left, right = scene.bodies
        think = language.think_of(scene)
        assert not re.search(rf'(on|onto|to) the ({left.name}|{right.name})', think), think
        assert language.grounding(f'So the {block.name} goes onto the {left.name}.', scene) == 0
        assert language.grounding(think, scene) == 1 and sim.loc_text(*block.place) in think


def test_it_is_asked_and_thought_about_in_korean_from_the_same_cell(scenes):
    for scene in scenes:
        asked, output = share.told_in_korean(scene)
        said, program, _ = sim.parse_output(output)
        assert '사이에' in asked and program == sim.solve(scene) and sim.loc_text(*scene.places[0]) in said


def test_a_task_without_a_think_says_nothing_that_is_not_checked(scenes, monkeypatch):
    "Guard: the plan is put into words only where the block goes onto its goal."
    monkeypatch.setitem(sim.TASKS, 'line_up', replace(sim.TASKS['line_up'], think=None))
    for scene in scenes:
        found = language.claims(language.think_of(scene), scene)
        assert [(claim.kind, claim.true) for claim in found] == [('place', True)] * 2 and due(scene) == 2
        assert language.think_of(scene).count('.') == len(found)


@pytest.mark.parametrize('mishap', ('', *DISTURBANCES))
def test_it_is_repaired_and_truly(scenes, mishap):
    "Guard: the expert in the loop stacked the block, mishap or none."
    played = [play((scene, mishap, expert_turn, budget(scene), 0)) for scene in scenes]
    assert sum(one.outcome.success for one in played) >= (5 if mishap else 6)
    for one in played:
        for look, text in one.turns: assert all(claim.true for claim in turn_claims(sim.parse_turn(text).think, look)), text


def test_it_teaches_turns(scenes, tmp_path):
    made = data.read_dataset(make_turns(4, tmp_path, SimPool(0), tasks=('line_up',), image_size=64))
    assert set(made['task']) == {'line_up'} and sum(json.loads(truth)['turn'] == 0 for truth in made['scene']) >= 3


def test_what_the_expert_cannot_do_is_said(scenes, tmp_path, monkeypatch, capfd):
    "Guard: episodes that fail are no demonstrations; that there are none, or fewer, was not said."
    stuck = sim.Task('what nothing can do', sim.TASKS['put_on'].sample, ('a', 'b', 'c'), success=lambda scene, poses: False)
    monkeypatch.setitem(sim.TASKS, 'stuck', stuck)
    for n, name, made in ((3, 'turns', make_turns), (5, 'looks', data.make_dataset)):
        with pytest.raises(UserError, match=r'solved none of 2 scenes \(stuck 2\)'): made(2, tmp_path / name, SimPool(0), tasks=('stuck',), image_size=64)
        assert not list((tmp_path / name).glob('*'))  # a task that was mended begins anew
        made(n, tmp_path / name, SimPool(0), tasks=('stuck', 'put_on'), image_size=64)
        assert f'failed in {n // 2 + 1} of {n} scenes, which are left out: stuck {n // 2 + 1}' in capfd.readouterr().err


def test_the_critic_is_told_of_a_task_that_came_late(scenes):
    "Guard: the width was counted when `critic` was imported, and a head made then was too narrow."
    text = language.expert(scenes[0])
    told = facts([text, '.'], scenes[0])
    assert told.shape == (2, facts_width()) and facts_width() == len(PRIVILEGED) * (1 + len(sim.TASKS))
    assert ValueHead(3, facts_width()).facts.weight.shape[1] == told.shape[1]
    own = told[:, len(PRIVILEGED):].reshape(2, len(sim.TASKS), -1)
    assert np.flatnonzero(own.any((0, 2))).tolist() == [list(sim.TASKS).index('line_up')]
    look = play((scenes[0], '', expert_turn, 1, 0)).turns[0][0]
    assert turn_facts([text], look).shape == (1, facts_width(len(STATE)))
