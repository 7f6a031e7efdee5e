"Claims that are checked as they end: what counts, what it earns, and prices that follow the rollouts."
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))
from thinkact_nb.algorithms import Pace
from thinkact_nb.trainer import Texts
from thinkact_nb.critic import claims_due, due
from thinkact_nb.language import claims, expert, think_of
from thinkact_nb.sim import loc_text, make_scene, to_bins
from thinkact_nb.tasks import TASKS, spread
from thinkact_nb.credit import LEVEL, MOST, STEP, Prices, claim_rewards, kept_shares

SCENES = spread(90, seed=11)


@pytest.mark.parametrize('task', TASKS)
def test_an_expert_makes_all_that_is_due_and_nothing_false(task):
    for scene in (s for s in SCENES if s.task == task):
        found = claims_due(expert(scene), scene)
        assert all(claim.true for claim, _ in found) and sum(new for _, new in found) == due(scene) >= 3


def test_neither_repetition_nor_a_second_place_is_paid_again():
    "Guard: a policy that says the same claim over and over would otherwise earn with every turn."
    for scene in SCENES[:18]:
        think = think_of(scene)
        twice = claims_due(f'{think} {think}', scene)
        assert sum(new for _, new in twice) == due(scene) and len(twice) == 2 * len(claims_due(think, scene))
    scene = make_scene('put_on', 'L0', 3)
    body = scene.bodies[0]
    x, y = to_bins(*body.place)
    said = ' '.join(f'The {body.name} is at <loc{x + d:02d}><loc{y:02d}>.' for d in (0, 1, -1))
    assert [(claim.true, new) for claim, new in claims_due(said, scene)] == [(True, True), (True, False), (True, False)]


def test_a_list_of_the_table_earns_no_more_than_the_task_needs():
    "Guard: what counts is bounded by what an expert would say here."
    scene = next(s for s in SCENES if s.task == 'put_on' and len(s.bodies) > due(s))
    all_of_it = ' '.join(f'The {b.name} is at ' + loc_text(*b.place) + '.' for b in scene.bodies)
    found = claims_due(all_of_it, scene)
    assert all(claim.true for claim, _ in found) and sum(new for _, new in found) == due(scene) < len(found)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*'abc .:', '<loc10>', '<loc32>', ' red block', ' is at ', '<think>', 'the ', 'left of', 'farthest one is the '])).map(''.join))
def test_any_text_is_read(text):
    scene = SCENES[0]
    earned = claim_rewards(list(text), scene, Prices())
    found = claims_due(text, scene)
    assert [claim for claim, _ in found] == claims(text, scene) and all(text[claim.start:claim.end] == claim.text for claim, _ in found)
    expected = sum(Prices().false * (claim.true - LEVEL) + Prices().missing * new for claim, new in found)
    assert earned.shape == (len(text),) and earned.sum() == pytest.approx(expected)


def test_a_claim_is_paid_on_the_token_that_ends_it():
    scene = make_scene('put_on', 'L0', 0)
    text = expert(scene)
    pieces = re.findall(r'<loc..>|<.*?>|\s?\w+|.', text)
    earned = claim_rewards(pieces, scene, Prices(.5, .2))
    ends = np.cumsum([len(p) for p in pieces])
    assert sorted(ends[earned != 0]) == sorted({claim.end for claim in claims(text, scene)})
    assert earned[earned != 0].min() == pytest.approx(.5 * (1 - LEVEL) + .2)


def test_silence_earns_nothing_and_truth_at_the_level_is_worth_nothing_by_itself():
    "Guard: the first price alone never pays for talking, and what is false costs more than its being said may bring."
    scene = make_scene('put_on', 'L0', 0)
    assert claim_rewards(list('<action>'), scene, Prices(1., 1.)).sum() == 0
    wrong = re.sub('<loc..><loc..>', '<loc00><loc63>', think_of(scene))
    found = claims_due(wrong, scene)
    assert found and claim_rewards(list(wrong), scene, Prices(1., .5)).sum() < -.4 * sum(not claim.true for claim, _ in found) + .53 * len(found)


def test_prices_rise_while_a_condition_is_broken_and_fall_while_it_is_kept():
    prices = Prices(.4, .2).after(.77, 1.)
    assert prices.false == pytest.approx(.4 + STEP * .2) and prices.missing == pytest.approx(.2 - STEP * .03)
    many = Prices()
    for _ in range(99): many = many.after(0., 0.)
    assert many == Prices(MOST, MOST)
    for _ in range(999): many = many.after(1., 1.)
    assert many == Prices(0., 0.)


def test_the_trainer_pays_by_the_rollouts_before_this_one():
    "Guard: prices follow from the ledger, and a trainer that was resumed finds the ones it had."
    tables = [pd.DataFrame(dict(task=[s.task for s in some], level='L0', seed=[s.seed for s in some], output=output, update=i))
              for i, (some, output) in enumerate(((SCENES[:9], ''), (SCENES[9:18], [expert(s) for s in SCENES[9:18]]), (SCENES[18:20], '')), 1)]
    assert kept_shares(tables[0]) == (1., 0.) and kept_shares(tables[1]) == (1., 1.)
    def paid(given):
        source, put = object.__new__(Texts), {}
        source.tables, source.shares = given, {}
        asked = SimpleNamespace(about=[make_scene(*key) for key in zip(tables[2].task, tables[2].level, tables[2].seed)])
        return source.claims(asked, [list('ab'), list('cd')], SimpleNamespace(log_mean=lambda **numbers: put.update(numbers))), put
    earned, put = paid(tables)
    expected = Prices().after(1., 0.).after(1., 1.)
    assert (put['price_false'], put['price_missing']) == pytest.approx((expected.false, expected.missing))
    assert (put['claims_true'], put['claims_made']) == (1., 0.) and torch.equal(earned, torch.zeros(2, 2).double())
    assert paid([pd.concat(tables[:2]), tables[2]])[1] == put


def test_the_rate_follows_the_kl_and_the_critics_does_not():
    "Guard: far below the target steps are wasted, far above it the texts of the rollout are no longer the policy's."
    pace, still = Pace(4, .01), Pace(4)
    assert [pace(step) for step in (0, 2, 4, 9)] == [0, .5, 1, 1]
    pace.saw(.001)
    assert pace(9) == 1.5 == pace.factor and still(9) == 1
    pace.saw(.012)
    assert pace(9) == 1.5
    pace.saw(.03)
    assert pace(9) == 1
    for _ in range(20): pace.saw(1.)
    assert pace.factor == pytest.approx(.1)
    for _ in range(40): pace.saw(0.)
    assert pace.factor == 10.
    optimizer = torch.optim.SGD([dict(params=[torch.nn.Parameter(torch.zeros(1))]), dict(params=[torch.nn.Parameter(torch.zeros(1))])], 1.)
    first = torch.optim.lr_scheduler.LambdaLR(optimizer, [pace, still])
    again = torch.optim.lr_scheduler.LambdaLR(optimizer, [Pace(4, .01), Pace(4)])
    again.load_state_dict(first.state_dict())
    assert again.lr_lambdas[0].factor == 10. and again.lr_lambdas[1].factor == 1.
