"What an episode is worth, by hand: no physics, no model."
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from thinkact_nb import model, sim
from thinkact_nb.tasks import spread
from thinkact_nb.language import expert
from thinkact_nb.env import UserError, get_profile
from thinkact_nb import reward as rewards
from thinkact_nb.reward import TERMS, RewardWeights, Term, episode_table, judge, rollout

DONE, FAILED = sim.Outcome(True, ''), sim.Outcome(False, 'wrong_place')


def score(outcome, think_tokens, *weights): return rewards.score(SimpleNamespace(**vars(outcome), think_tokens=think_tokens), *weights)


@pytest.mark.parametrize('outcome, safety, reward', [
    (DONE, 0, 1), (FAILED, 0, -1),
    (replace(DONE, contact_force=50.), -.5, .875), (replace(FAILED, contact_force=50.), -.5, -1.125),
    (replace(DONE, contact_force=250.), -1, .75), (replace(DONE, dropped=True), -1, .75),
    (replace(DONE, joint_speed=4.4), 0, 1), (replace(DONE, joint_speed=4.6), -1, .75),
    (replace(DONE, contact_force=80., dropped=True, joint_speed=9.), -1, .75)])
def test_the_reward_is_the_sum_of_its_terms(outcome, safety, reward):
    "Guard: a term with the wrong sign trains the robot to hit the table, and every number of the report stays plausible."
    terms = score(outcome, 30)
    assert (terms['r_success'], terms['r_safety'], terms['reward']) == (1 if outcome.success else -1, safety, reward)


def test_a_short_think_pays_only_when_asked_for_and_only_on_success():
    "Guard: a bonus for short thinks that is on by itself, or paid for failing fast, ends the thinking."
    short = RewardWeights(efficiency=.5, safety=0.)
    assert [score(DONE, n, short)['reward'] for n in (0, 25, 100, 300)] == [1.5, 1.375, 1, 1]
    assert [score(FAILED, n, short)['reward'] for n in (0, 100)] == [-1, -1]
    assert score(DONE, 0)['reward'] == 1 and score(DONE, 0)['r_efficiency'] == 1


def test_weights_are_named_and_kept_whole(monkeypatch):
    "Guard: an adapter's manifest compares them as text, and weights that were made before a term was added lack it."
    assert str(RewardWeights(safety=.5)) == 'RewardWeights(efficiency=0.0, safety=0.5)' == str(RewardWeights().but(safety=.5))
    with pytest.raises(UserError, match="unknown term of the reward 'speed'"): RewardWeights(speed=1.)
    before = RewardWeights()
    monkeypatch.setitem(TERMS, 'haste', Term('a price of a second', .1, lambda episode: -episode.think_tokens))
    assert score(DONE, 5, before)['reward'] == .5 and score(DONE, 5, before.but(haste=.2))['reward'] == 0
    assert str(before.but()) == 'RewardWeights(efficiency=0.0, safety=0.25, haste=0.1)'


def test_trying_and_failing_is_never_worth_more_than_succeeding():
    "Guard: were safety weighed above success, doing nothing would be the best policy."
    worst = score(replace(DONE, contact_force=1e4, dropped=True, joint_speed=99.), 500)['reward']
    assert worst > score(FAILED, 0)['reward']


def count(text, add_special_tokens):
    "A tokenizer of words."
    return SimpleNamespace(input_ids=text.split())


class Scripted:
    "A pool with outcomes written down, which keeps what it was asked to run."
    def __init__(self, outcomes): self.outcomes, self.ran = outcomes, []

    def run(self, scenes, programs):
        self.ran += zip(scenes, programs)
        return [outcome if program else sim.NO_PROGRAM for outcome, program in zip(self.outcomes, programs)]

    def images(self, scenes, size): return [np.full((size, size, 3), s.seed, np.uint8) for s in scenes]


def test_each_text_is_judged_in_its_own_scene():
    "Guard: texts and scenes out of step give every text the reward of its neighbour."
    scenes = spread(3, ['put_on'])
    outputs = [expert(scenes[0]), 'no program at all', expert(scenes[2])]
    pool = Scripted([DONE, DONE, replace(FAILED, contact_force=100.)])
    found = judge(scenes, outputs, pool, count, arm='a', samples=[0, 1, 2])
    assert [s.seed for s, _ in pool.ran] == [0, 1, 2] and pool.ran[1][1] is None
    assert [e.seed for e in found] == [0, 1, 2] and [e.sample for e in found] == [0, 1, 2]
    assert [e.reward for e in found] == [1, -1, -1.25] and [e.success for e in found] == [True, False, False]
    assert [e.parsed for e in found] == [True, False, True] and found[1].failure == 'parse' and found[1].reason
    assert found[0].think_tokens == len(found[0].think.split()) > 5 and found[0].action_tokens == len(found[0].action.split())
    assert found[0].grounding == found[2].grounding == 1 and np.isnan(episode_table(found).grounding[1])


def test_a_rollout_keeps_samples_of_a_scene_together(monkeypatch):
    "Guard: repeated in another order than the scenes, texts would be run in others than they were written about."
    scenes = spread(2, ['stack'])
    profile = get_profile('tiny')
    asked = {}

    def write(net, processor, images, instructions, starts, *numbers):
        asked.update(pictures=[int(i[0, 0, 0]) for i in images], instructions=instructions, starts=starts, numbers=numbers)
        return [expert(scenes[picture]) for picture in asked['pictures'] for _ in range(numbers[-1])]
    monkeypatch.setattr(model, 'write', write)
    pool = Scripted([DONE]*6)
    found = rollout(None, SimpleNamespace(tokenizer=count), profile, scenes, pool, 'a', .7, 3, ['x', 'y'], seed=5)
    assert asked['pictures'] == [0, 1] and asked['starts'] == ['x', 'y'] and asked['instructions'] == [s.instruction for s in scenes]
    assert asked['numbers'] == (profile.max_new_tokens, .7, profile.eval_batch, 5, 3)
    assert [e.output for e in found] == [expert(s) for s in scenes for _ in range(3)]
    assert [(e.seed, e.sample) for e in found] == [(s, i) for s in (0, 1) for i in range(3)]
