"PPO on turns: advantages through an episode, what the critic is told, and a trainer whose rows are turns."
import shutil
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from thinkact_nb.critic import PRIVILEGED, facts_width
from thinkact_nb.language import claims
from thinkact_nb.env import UserError, get_profile
from thinkact_nb.loop import budget, expert_turn, next_carry, play
from thinkact_nb.pool import SimPool
from thinkact_nb.ppo import gae, targets
from thinkact_nb.reward import EPISODE
from thinkact_nb.sim import make_scene, scene_of
from thinkact_nb.store import ALGORITHMS, SHIPPED, Store
from thinkact_nb.tasks import TASKS, spread
from thinkact_nb.think import claim_table
from thinkact_nb.trainer import rl_trainer, train_rl
from thinkact_nb import turn_rl
from thinkact_nb.turn_rl import STATE, Turns, train_turns, turn_dataset, turn_facts
from thinkact_nb.turns import MIX, loop_episodes

SMALL = replace(get_profile('tiny'), rl_batch=12, rl_micro_batch=6, max_new_tokens=60)


def rows(seed, turns=7, tokens=5):
    "Rewards, values, mask and episodes of some turns, as a rollout has them."
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, tokens + 1, (turns,), generator=draw)
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    values, rewards = torch.randn(turns, tokens, generator=draw) * mask, torch.zeros(turns, tokens)
    episode = torch.tensor([0, 0, 0, 1, 2, 2, 3])
    ends = [k for k in range(turns) if k + 1 == turns or episode[k + 1] != episode[k]]
    rewards[ends, lengths[ends] - 1] = torch.randn(len(ends), generator=draw)
    return rewards, values, mask, episode


@pytest.mark.parametrize('lam, turn_lam, gamma', [(1., 1., 1.), (.9, .5, 1.), (.5, .9, .97), (0., 0., 1.)])
def test_advantages_are_those_of_plain_arithmetic(lam, turn_lam, gamma):
    "Token by token backwards through each episode, by hand."
    rewards, values, mask, episode = rows(1)
    found, returns = gae(rewards, values, mask, gamma, lam, turn_lam, episode)
    after = {}  # of each episode: value and advantage of the token after
    for k in reversed(range(len(mask))):
        length = int(mask[k].sum())
        for t in reversed(range(length)):
            following, last = after.get(int(episode[k]), (0., 0.))
            trust = turn_lam if t == length - 1 else lam
            last = rewards[k, t].item() + gamma * following - values[k, t].item() + gamma * trust * last
            assert found[k, t].item() == pytest.approx(last, abs=1e-5)
            after[int(episode[k])] = values[k, t].item(), last
    assert not found[mask == 0].any() and torch.allclose(returns, (found + values) * mask)


def test_turns_that_are_an_episode_each_have_the_advantages_of_texts():
    rewards, values, mask, _ = rows(2)
    found = gae(rewards, values, mask, lam=.8, turn_lam=.1, episode=torch.arange(len(mask)))[0]
    torch.testing.assert_close(found, gae(rewards, values, mask, lam=.8)[0])


def test_without_a_critic_every_token_hears_what_the_episode_earned():
    rewards, values, mask, episode = rows(3)
    found = gae(rewards, torch.zeros_like(values), mask, episode=episode)[0]
    earned = torch.zeros(4).index_add(0, episode, rewards.sum(1))
    torch.testing.assert_close(found, earned[episode][:, None] * mask)


def test_the_critic_is_told_how_an_episode_stands():
    for scene in spread(9, seed=60):
        played = play((scene, 'miss', expert_turn, budget(scene), 0))
        for look, text in played.turns:
            known = turn_facts([text, '.'], look)
            solved, last, left = known[0, len(PRIVILEGED):len(PRIVILEGED) + len(STATE)]
            assert known.shape == (2, facts_width(len(STATE)))
            assert (solved, last) == (next_carry(look) is None, look.turn + 1 == budget(scene))
            assert left == (budget(scene) - look.turn - 1) / budget(scene)
            said = dict(zip(PRIVILEGED, known[1]))
            assert said['made'] == pytest.approx(1), (look, text)  # what an expert says at this look, and not what one says who begins
            assert said['wrong step'] == 0 and said['false claim'] == 0 and said['right step'] == (not solved)
            own = known[:, len(PRIVILEGED) + len(STATE):].reshape(2, len(TASKS), -1)
            assert np.flatnonzero(own.any((0, 2))).tolist() == [list(TASKS).index(scene.task)]


def start(folder):
    store = Store(folder / 'run', SMALL)
    shutil.copytree(SHIPPED / 'sft', store.path('sft'), dirs_exist_ok=True)
    return store


@pytest.fixture(scope='module')
def rolled(tmp_path_factory):
    "A trainer after one rollout of twelve turns, by a policy that learned one look."
    trainer = rl_trainer(start(tmp_path_factory.mktemp('rolled')), SimPool(0), updates=1, kind=Turns, turn_lam=.5, num_generations=1)
    trainer.model.train()
    seen, plain = [], trainer.source.written
    trainer.source.written = lambda *asked: seen.append(plain(*asked)) or seen[-1]
    trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(SMALL.rl_batch)])
    trainer.acted = seen[0].about
    return trainer


def test_a_rollout_has_the_turns_of_whole_episodes(rolled):
    table, turns = rolled.rollout.episodes, rolled.acted
    assert len(table) == len(turns) == SMALL.rl_batch
    number = np.array([turn.episode for turn in turns])
    assert (np.diff(number) >= 0).all() and set(np.diff(number)) <= {0, 1} and number[-1] > 0
    for k, turn in enumerate(turns):
        assert turn.look.turn == (turns[k - 1].look.turn + 1 if k and number[k] == number[k - 1] else 0)
        assert turn.mishap == MIX[turn.episode % len(MIX)] == table.mishap[k] and not table.perturbed[k] and table['sample'][k] == turn.look.turn
        assert table.instruction[k] == turn.look.asked and table.output[k] == turn.text == turn.played.turns[turn.look.turn][1]
    assert [scene_of(row) for row in table.to_dict('records')] == [turn.look.scene for turn in turns]
    first = table[table['sample'] == 0]
    assert claim_table(table).n.sum() == sum(len(claims(row.think, scene_of(row._asdict()))) for row in first.itertuples())
    for k in range(len(turns) - 1):  # an episode that is over: all of its turns are there
        if number[k] != number[k + 1]: assert turns[k].look.turn + 1 == len(turns[k].played.turns)


def test_what_is_learned_from_is_what_was_written(rolled):
    for turn, ids, mask in zip(rolled.acted, rolled.rollout.ids, rolled.rollout.mask):
        assert ids[mask.bool()].tolist() == turn.drawn.ids.tolist()
        assert rolled.processing_class.decode(turn.drawn.ids, skip_special_tokens=True).strip('\n') == turn.text


def test_an_episode_earns_on_its_last_turn(rolled):
    table, number = rolled.rollout.episodes, [turn.episode for turn in rolled.acted]
    last = [k for k in range(len(number)) if k + 1 == len(number) or number[k + 1] != number[k]]
    assert table.index[table.reward != 0].tolist() == last == Turns.by_episode(None, table).index.tolist()
    assert rolled.rollout.rewards.sum(1).tolist() == pytest.approx(table.reward.tolist())
    assert (table.success == [turn.played.outcome.success for turn in rolled.acted]).all()


def test_only_advantages_have_the_lambda_between_turns(rolled):
    "What was earned and what the values are fitted to trust nothing but the end."
    rollout = replace(rolled.rollout, facts=None)
    one, other = (targets(rollout, replace(ALGORITHMS['ppo'], turn_lam=lam)) for lam in (1., .2))
    assert torch.equal(one['returns'], other['returns']) and not torch.equal(one['advantages'], other['advantages'])
    plain = gae(rollout.rewards, rollout.values * 0, rollout.mask, episode=rollout.episode)[0]
    torch.testing.assert_close(one['returns'], plain)


@pytest.mark.long
def test_two_updates_are_one_and_one_more(tmp_path):
    whole, parts = start(tmp_path / 'whole'), start(tmp_path / 'parts')
    train_turns(whole, SimPool(0), updates=2)
    train_turns(parts, SimPool(0), updates=1)
    log = train_turns(parts, SimPool(0), updates=2, resume=True)
    one, other = (pd.read_parquet(store.run / 'rl/ppo/rollouts.parquet') for store in (whole, parts))
    pd.testing.assert_frame_equal(one, other)
    for file in ('adapter_model.safetensors', 'value_head.safetensors'):
        assert (whole.run / 'rl/ppo' / file).read_bytes() == (parts.run / 'rl/ppo' / file).read_bytes()
    assert log['update'].tolist() == [1, 2] and log.filter(like='seconds_').ge(0).all(axis=None)
    with pytest.raises(UserError, match='turn_lam 0.9, not 0.2'): train_turns(parts, SimPool(0), updates=3, resume=True, turn_lam=.2)


def test_a_ledger_of_before_goes_on(tmp_path):
    "Guard: mishaps stood in `perturbed`; a training that goes on has one column for them."
    table = pd.DataFrame([{name: kind() for name, kind in EPISODE.items()} | dict(perturbed=mishap, task='put_on', level='L0', update=1) for mishap in MIX])
    table.to_parquet(tmp_path / 'rollouts.parquet')
    ledger = object.__new__(Turns)
    ledger.resume(tmp_path)
    assert ledger.tables[0].mishap.tolist() == list(MIX) and not ledger.tables[0].perturbed.any()


def test_what_single_texts_alone_have_is_refused(tmp_path):
    for algo in ('grpo', 'ppo+true', 'ppo+credit'):
        with pytest.raises(UserError, match='for turns take ppo'): train_rl(start(tmp_path / algo), SimPool(0), algo, updates=1, kind=Turns)


def test_each_scene_may_have_its_own_mishap():
    scenes = [make_scene('put_on', 'L0', 5)] * len(MIX)
    together = loop_episodes('expert', scenes, SimPool(0), SMALL, disturb=list(MIX))
    alone = [loop_episodes('expert', scenes[:1], SimPool(0), SMALL, disturb=name)[0] for name in MIX]
    assert [p.outcome for p in together] == [p.outcome for p in alone]
    assert turn_dataset(scenes, None, 64)['mishap'][:] == list(MIX)


def test_a_rollout_goes_on_with_scenes_that_it_has_not_played(monkeypatch):
    "Guard: `play_turns`. Episodes that end after one look leave turns to be played, in the scenes that come next."
    asked = []
    def one_look(policy, scenes, pool, profile, turns, mishaps):
        asked.extend(scenes)
        looks = [SimpleNamespace(scene=scene, turn=0) for scene in scenes]
        policy.answer.__self__.written |= {(scene, 0): (look, [1]) for scene, look in zip(scenes, looks)}
        return [SimpleNamespace(turns=[(look, '')]) for look in looks]
    monkeypatch.setattr(turn_rl, 'loop_episodes', one_look)
    rows = [dict(task='put_on', level='L0', seed=seed, mishap='') for seed in range(10)]
    store = SimpleNamespace(profile=get_profile('tiny'))
    trainer = SimpleNamespace(source=SimpleNamespace(store=store), seconds=dict(generate=0., simulate=0.), clock=lambda _: nullcontext())
    found = turn_rl.play_turns(rows, trainer, None)
    assert [turn.look.scene.seed for turn in found] == list(range(10)) and len(asked) == 10
