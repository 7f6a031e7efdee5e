"PPO's arithmetic against plain loops, its gradient against the policy gradient, and a toy that every algorithm must solve."
import inspect
import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import PrinterCallback

sys.path.insert(0, str(Path(__file__).parent.parent))
from thinkact_nb import algorithms, credit, critic, ledger, ppo, sim
from thinkact_nb import trainer as rl
from thinkact_nb.tasks import TASKS, spread
from thinkact_nb.language import expert
from thinkact_nb import store as stores
from thinkact_nb.env import UserError, get_profile, seed_all, split_of
from thinkact_nb.store import SHIPPED, Store
from thinkact_nb.family import chat, load_processor
from thinkact_nb.model import Drawn, load_model
from thinkact_nb.pool import SimPool, draw_scene

PROFILE = get_profile('tiny')


@st.composite
def rollouts(draw):
    texts, tokens = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    numbers = st.lists(st.floats(-3, 3), min_size=texts*tokens, max_size=texts*tokens).map(lambda x: torch.tensor(x, dtype=torch.float64).view(texts, tokens))
    lengths = torch.tensor([draw(st.integers(1, tokens)) for _ in range(texts)])
    return draw(numbers), draw(numbers), (torch.arange(tokens) < lengths[:, None]).double(), draw(st.floats(.5, 1)), draw(st.floats(0, 1)), draw(numbers)


@settings(max_examples=200, deadline=None)
@given(rollouts())
def test_gae_is_the_sum_it_stands_for(rollout):
    rewards, values, mask, gamma, lam, _ = rollout
    advantages, returns = ppo.gae(rewards, values, mask, gamma, lam)
    for i, n in enumerate(mask.sum(1).int().tolist()):
        value = lambda t: values[i, t].item() if t < n else 0.
        delta = [rewards[i, t].item() + gamma*value(t + 1) - value(t) for t in range(n)]
        for t in range(n): assert abs(advantages[i, t].item() - sum((gamma*lam)**k*delta[t + k] for k in range(n - t))) < 1e-9
        assert torch.all(advantages[i, n:] == 0)
    assert torch.equal(returns, advantages + values*mask)


@settings(max_examples=200, deadline=None)
@given(rollouts(), st.floats(.01, 1))
def test_value_loss_is_the_mean_of_the_worse_square(rollout, clip):
    returns, old, mask, *_, now = rollout
    squares = []
    for i, j in zip(*np.nonzero(mask.numpy())):
        o, v, r = (x[i, j].item() for x in (old, now, returns))
        squares.append(max((v - r)**2, (min(max(v, o - clip), o + clip) - r)**2)/2)
    assert abs(ppo.value_loss(now, old, returns, mask, clip).item() - np.mean(squares)) < 1e-9


MASK, VALUES = torch.tensor([[1, 1, 1], [1, 1, 0]]), torch.tensor([[.1, .2, .4], [.3, -.2, 9.]])


def rolled(rewards=((0, 0, 1), (0, -1, 0)), **others):
    "A rollout of two texts, of three tokens and of two."
    zeros = torch.zeros(2, 3)
    return ppo.Rollout(**dict(ids=zeros.long(), mask=MASK, old=zeros, rewards=torch.tensor(rewards, dtype=torch.float32), values=VALUES) | others)


def like(name='ppo', **settings): return replace(stores.ALGORITHMS[name], **settings)


def standardised(advantages):
    "What the policy's loss gets, by numpy."
    some = advantages[MASK.bool()].double().numpy()
    return (advantages - some.mean())/np.sqrt(some.var() + 1e-2)*MASK


def test_a_rollout_gives_the_critic_what_was_earned_and_the_policy_what_was_better_than_foreseen():
    "Guard: the critic's target is the reward whatever λ is; padding counts nothing."
    out = ppo.targets(rolled(), like(lam=.5))
    assert torch.allclose(out['returns']*MASK, torch.tensor([[1., 1, 1], [-1, -1, 0]]), atol=1e-6)
    assert torch.equal(out['old_values'], torch.tensor([[.1, .2, .4], [.3, -.2, 0]]))
    last = [[.1 + .5*(.2 + .5*.6), .2 + .5*.6, .6], [-.5 + .5*-.8, -.8, 0]]
    torch.testing.assert_close(out['advantages'], standardised(torch.tensor(last)).float())


def test_the_reward_falls_on_a_texts_last_token(monkeypatch):
    "Guard: not on padding, and not before; rows are kept with the update that they are of."
    made, kept = object.__new__(rl.PPOTrainer), []
    drawn = Drawn(torch.tensor([[1, 2, 7], [3, 7, 0]]), torch.tensor([3, 2]), torch.tensor([[-.1, -.2, -.3], [-.4, -.5, -9]]), torch.ones(2, 3, 4))
    written = rl.Written(None, None, drawn.rows(), None, None, [0, 0])
    source = SimpleNamespace(written=lambda rows, trainer: written, came=lambda written: pd.DataFrame(dict(reward=[1., -1.])), keep=lambda table, update: kept.append(update) or {})
    for name, method in dict(asked=lambda self, read, width: {}, reference=lambda self, batch: None, tell=lambda self, rollout, written: None, log_mean=lambda self: None).items():
        monkeypatch.setattr(rl.PPOTrainer, name, method)
    made.__dict__.update(source=source, shares=False, seconds={}, state=SimpleNamespace(global_step=5), args=SimpleNamespace(logging_steps=2), model=None, accelerator=SimpleNamespace(device='cpu', unwrap_model=lambda model: model),
                         processing_class=SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=9)))
    rollout = made.roll_out([])
    assert rollout.rewards.tolist() == [[0, 0, 1], [0, -1, 0]] and kept == [3]
    assert rollout.ids.tolist() == [[1, 2, 7], [3, 7, 9]] and torch.equal(rollout.mask, MASK) and rollout.episode.tolist() == [0, 0]
    assert torch.equal(rollout.old, torch.tensor([[-.1, -.2, -.3], [-.4, -.5, 0]])) and rollout.values is None


def test_an_update_is_twenty_lines_or_less():
    "Guard: what an update computes is read in one sitting."
    for function in (ppo.targets, ppo.ppo_loss): assert len(inspect.getsource(function).rstrip().splitlines()) <= 20


@pytest.fixture
def reported(monkeypatch):
    "What a trainer logs of a rollout, by name; one with no model."
    def report(rollout, learn, **settings):
        made = object.__new__(rl.PPOTrainer)
        logged = {}
        monkeypatch.setattr(rl.PPOTrainer, 'log_mean', lambda self, **numbers: logged.update({name: float(x) for name, x in numbers.items()}))
        made.__dict__.update(dict(num_generations=1, ends=[7]) | settings)
        rollout.episodes = pd.DataFrame(dict(reward=rollout.rewards.sum(1).tolist()))
        made.report(rollout, learn)
        return logged
    return report


def test_what_the_critic_foresaw_is_logged(reported):
    "Guard: explained variance is 1 for a critic that knows all, and below 0 for one that is worse than none."
    known = torch.tensor([[1., 1, 1], [-1, -1, 0]])
    rollouts = [rolled(values=values) for values in (known, -known, known*0)]
    logged = [reported(each, ppo.targets(each, like()))['explained_variance'] for each in rollouts]
    assert np.allclose(logged, [1, -3, 0], atol=1e-6)


def test_the_kl_to_the_sft_policy_is_logged_with_its_sign(reported):
    "Guard: texts come from the policy, so the estimate is r - 1 - log r with r = reference/policy; not with r turned around."
    gap = torch.tensor([[math.log(2), 0, 0], [0, 0, math.log(9)]])  # the last is padding
    assert reported(rolled(reference=gap), {})['ref_kl'] == pytest.approx((2 - 1 - math.log(2))/5)
    assert 'ref_kl' not in reported(rolled(), {})


def test_what_ended_and_what_taught_nothing_is_logged(reported):
    "Guard: a text that was cut off, and scenes whose texts earned alike; `log_columns` takes both from the log."
    cut = rolled(ids=torch.tensor([[1, 2, 7], [7, 3, 7]]))  # the second has two tokens, and the last is no end
    assert reported(cut, {})['completions/clipped_ratio'] == .5 and reported(cut, {})['completions/mean_length'] == 2.5
    assert reported(rolled(), {}, num_generations=2)['frac_reward_zero_std'] == 0
    assert reported(rolled(((0, 0, 1), (0, 1, 0))), {}, num_generations=2)['frac_reward_zero_std'] == 1
    assert set(ledger.log_columns().values()) >= {'completions/clipped_ratio', 'frac_reward_zero_std', 'ref_kl', 'reward'}


def test_policies_are_held_to_the_sft_policy_unless_asked_otherwise(tmp_path):
    "Guard: without the KL term the policy may leave the language; these are the numbers that the page on PPO names."
    configs = {algo: algorithms.rl_config(PROFILE, tmp_path, algo, 1) for algo in algorithms.ALGORITHMS}
    assert {algo: (c.beta, c.gamma, c.lam) for algo, c in configs.items()} == dict.fromkeys(algorithms.ALGORITHMS, (.02, 1., 1.)) | {'ppo+true': (.02, 1., .9)}
    assert [algo for algo, c in configs.items() if c.verified] == ['ppo+true'] and not any(c.target_kl for c in configs.values())
    assert {algo: c.num_generations for algo, c in configs.items()} == {'ppo': 4, 'grpo': 4, 'rloo': 4, 'ppo+true': 4, 'ppo+credit': 4, 'ppo+short': 4}
    extras = {algo: (c.credit, c.efficiency) for algo, c in configs.items() if c.credit or c.efficiency}
    assert extras == {'ppo+credit': (.5, 0.), 'ppo+short': (0., .5)}
    assert {algo: c.baseline for algo, c in configs.items() if c.baseline != 'critic'} == dict(grpo='group', rloo='others')


@pytest.mark.parametrize('algo', ['grpo', 'rloo'])
def test_baselines_of_a_scene_are_those_of_plain_loops(algo):
    "Guard: GRPO divides what is above the mean of all by their deviation; leave-one-out leaves one out, and divides by nothing."
    earned = [1., -1, -1, 0, .5, .5, .5, -1]
    blank = torch.zeros(8, 2)
    rollout = ppo.Rollout(blank.long(), torch.tensor([[1, 1], [1, 0]]*4), blank, torch.tensor([[e, 0] for e in earned]))
    found = ppo.targets(rollout, like(algo))
    for i, e in enumerate(earned):
        scene = earned[i//4*4:i//4*4 + 4]
        others = [x for k, x in enumerate(scene) if k != i % 4]
        right = (e - np.mean(scene))/(np.std(scene, ddof=1) + 1e-4) if algo == 'grpo' else e - np.mean(others)
        assert found['advantages'][i].tolist() == pytest.approx([right, right*(1 - i % 2)], abs=1e-6)
    assert found.keys() == {'advantages'}


def test_credit_makes_the_think_of_a_good_action_more_likely():
    "Guard: what a think contributes is added to the advantage of its own tokens, with a plus."
    gained = torch.tensor([[2.], [-1.]])*torch.tensor([[1., 1, 0], [1, 0, 0]])
    out = ppo.targets(rolled(values=VALUES*0, credit=gained), like('ppo+credit'))
    with_credit = torch.tensor([[1 + .5*2, 1 + .5*2, 1], [-1 - .5, -1, 0]])
    torch.testing.assert_close(out['advantages'], standardised(with_credit).float())


def test_a_think_ends_with_its_closing_tag():
    "Guard: credit falls on the think and its closing tag, and on nothing after it."
    ids = torch.tensor([[3, 3, 7, 4, 7], [7, 3, 3, 3, 3], [3, 3, 3, 3, 3]])
    assert credit.thinking(ids, 7).tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]


def test_the_contribution_is_the_own_think_minus_the_exchanged_one(monkeypatch):
    "Guard: positive where the own think makes actions better; a text that was not parsed has none."
    source, nobody = object.__new__(rl.Texts), SimpleNamespace(eval=lambda: None, train=lambda: None)
    source.__dict__.update(pool=None, weights=None, config=SimpleNamespace(max_completion_length=9, credit_samples=2))
    asking = SimpleNamespace(processing_class=SimpleNamespace(tokenizer=None), state=SimpleNamespace(global_step=0), model=nobody, log_mean=lambda **_: None,
                             accelerator=SimpleNamespace(unwrap_model=lambda model: model, device='cpu'))
    episodes = pd.DataFrame(dict(think=list('abc'), parsed=[True, True, False]))
    written = SimpleNamespace(about=spread(3, ['put_on']), images=[np.zeros((2, 2, 3))]*3)
    monkeypatch.setattr(rl, 'write', lambda model, processor, images, instructions, starts, *_: starts)
    worth = {'<think>a</think>': 1., '<think>b</think>': -1., '<think>c</think>': .5}
    monkeypatch.setattr(rl, 'judge', lambda scenes, outputs, *_: [SimpleNamespace(reward=worth[o]) for o in outputs])
    assert source.gained(written, episodes, asking).tolist() == [1 - .5, -1 - 1, 0]


@pytest.mark.parametrize('credit, verified', [(.5, False), (0., True), (.5, True)])
def test_what_the_think_earns_stands_where_it_is_earned(monkeypatch, credit, verified):
    "Guard: credit on the tokens of the think alone; what claims earn on tokens, and nothing on padding."
    monkeypatch.setattr(rl, 'thinking', lambda ids, closes: torch.tensor([[1., 1, 0], [1, 0, 0]]))
    made = object.__new__(rl.PPOTrainer)
    source = SimpleNamespace(claims=lambda *_: torch.full((2, 3), .25), gained=lambda *_: torch.tensor([2., -1.]))
    nobody = SimpleNamespace(unwrap_model=lambda model: SimpleNamespace())
    made.__dict__.update(args=SimpleNamespace(credit=credit, verified=verified, privileged=False), source=source, seconds={}, model=None, accelerator=nobody,
                         processing_class=SimpleNamespace(batch_decode=lambda ids: [''] * len(ids), tokenizer=SimpleNamespace(convert_tokens_to_ids={'</think>': 7}.get)))
    rollout = rolled()
    before = rollout.rewards.clone()
    made.tell(rollout, None)
    assert torch.equal(rollout.rewards, before + .25*verified*MASK) and rollout.facts is None
    assert rollout.credit is None if not credit else rollout.credit.tolist() == [[2, 2, 0], [-1, 0, 0]]


def test_the_critic_is_a_fit_of_facts_to_rewards(monkeypatch):
    "Guard: a fact that came with reward 1 and one that came with −1 are worth that before the first update."
    monkeypatch.setattr(critic, 'RIDGE', (1e-9, 1e-9))
    head = critic.ValueHead(3, 2)
    facts = torch.tensor([[[1., 0], [1, 0], [1, 0]], [[0, 1], [0, 1], [5, 5]]])  # the last is padding
    earned = torch.tensor([[1., 1, 1], [-1, -1, 0]])
    ppo.foresee(head, facts, earned, MASK)
    torch.testing.assert_close(head.facts.weight.data, torch.tensor([[1., -1]]))
    ppo.foresee(head, facts, -earned, MASK)  # the other way round: what was before counts three quarters
    torch.testing.assert_close(head.facts.weight.data, torch.tensor([[-.25, .25]])/1.75)


def test_little_is_believed_of_a_fact_that_was_seen_little():
    "Guard: three texts of a task say little about it; what is alike for all tasks is believed sooner."
    head, many = critic.ValueHead(3, critic.facts_width()), torch.ones(critic.facts_width(), dtype=torch.float64)
    worth = head.fitted(torch.diag(100*many), 100*many)
    n = len(critic.PRIVILEGED)
    torch.testing.assert_close(worth[:n], torch.ones(n), atol=1e-4, rtol=0)
    torch.testing.assert_close(worth[n:], torch.full((critic.facts_width() - n,), .5))
    assert not head.facts.weight.requires_grad and not head.facts.weight.any()  # `fitted` only tells
    head.learn(torch.diag(100*many), 100*many)
    again = critic.ValueHead(3, critic.facts_width())
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.squares, head.squares) and torch.equal(again.facts.weight, head.facts.weight) and head.facts.weight.any()


@pytest.mark.parametrize('task', TASKS)
def test_half_of_a_task_is_half_of_it_whatever_the_task(task):
    "Guard: counted claims are worth more in a long task than in a short one, and what comes after is blamed or praised for it."
    tokenizer = load_processor(PROFILE).tokenizer
    scene = sim.make_scene(task, 'L0', 4)
    text = expert(scene)
    pieces = [tokenizer.decode([i]) for i in tokenizer(text, add_special_tokens=False).input_ids]
    known = critic.facts([*pieces, '.'], scene)
    made, right = (known[:, critic.PRIVILEGED.index(name)] for name in ('made', 'right step'))
    assert made[-1] == pytest.approx(1) and right[-1] == pytest.approx(1) and 1 in made[:-10].round(6) and not right[:10].any()
    own = known[:, len(critic.PRIVILEGED):].reshape(len(known), len(TASKS), -1)
    mine = list(TASKS).index(task)
    assert (own[:, mine, 0] == 1).all() and np.array_equal(own[:, mine], known[:, :len(critic.PRIVILEGED)]) and not np.delete(own, mine, 1).any()


def test_the_critic_has_not_seen_the_texts_it_judges(monkeypatch):
    "Guard: a fit to the texts it judges foresees what it was told, and leaves nothing to learn."
    monkeypatch.setattr(critic, 'RIDGE', (1e-9, 1e-9))
    zeros, rewards = torch.zeros(4, 2), torch.tensor([[1.], [-1], [1], [1]])
    # in the first half of the texts the second fact comes with -1, in the second with 1
    facts = torch.tensor([[1., 0], [0, 1], [1, 0], [0, 1]])[:, None].expand(4, 2, 2)
    given = dict(ids=zeros.long(), mask=torch.ones(4, 2, dtype=torch.long), old=zeros, values=zeros, facts=facts)
    head, rollout = critic.ValueHead(3, 2), ppo.Rollout(rewards=torch.cat([zeros[:, :1], rewards], 1), **given)
    out = ppo.targets(rollout, like(), head)
    foreseen = torch.tensor([[1., 1], [1, 1], [1, 1], [-1, -1]])
    surprise = rewards - foreseen
    mean, variance = surprise.mean(), surprise.var(correction=0)
    torch.testing.assert_close(out['advantages'], (surprise - mean)/(variance + 1e-2).sqrt())
    torch.testing.assert_close(out['foreseen'], foreseen)
    torch.testing.assert_close(out['old_values'], torch.tensor([[1., 1], [0, 0], [1, 1], [0, 0]]))  # what is kept is the fit to all
    torch.testing.assert_close(ppo.targets(rollout, like(), head)['old_values'], out['old_values'])
    assert head.facts.weight.tolist() == [[pytest.approx(1), pytest.approx(0)]]


@settings(max_examples=100, deadline=None)
@given(rollouts(), st.floats(.05, .5), st.sampled_from((0., .1)))
def test_the_policys_loss_is_that_of_plain_arithmetic(rollout, clip, beta):
    "Guard: token by token, by hand; TRL's own is the oracle in test_trl.py."
    old, advantages, mask, *_, now = rollout
    reference, each = old.flip(0), []
    for i, j in zip(*np.nonzero(mask.numpy())):
        n, o, r, a = (x[i, j].item() for x in (now, old, reference, advantages))
        ratio = math.exp(n - o)
        kl = ratio*(math.exp(r - n) - (r - n) - 1)
        each.append(beta*kl - min(ratio*a, min(max(ratio, 1 - clip), 1 + clip)*a))
    assert ppo.ppo_loss(now, old, reference, advantages, mask, clip, beta).item() == pytest.approx(np.mean(each), rel=1e-9, abs=1e-9)


@pytest.fixture
def learning(tmp_path, monkeypatch):
    "A trainer with no model, whose texts are scored by hand."
    def make(algo, scored, **settings):
        made, logged = object.__new__(rl.PPOTrainer), {}
        head = critic.ValueHead(3) if algo == 'ppo' else None
        alone = SimpleNamespace(reduce=lambda x, how: x, unwrap_model=lambda model: model)
        config = algorithms.rl_config(PROFILE, tmp_path, algo, 1, **dict(privileged=False) | settings)
        made.__dict__.update(args=config, accelerator=alone, model=SimpleNamespace(value_head=head))
        monkeypatch.setattr(rl.PPOTrainer, 'score', lambda self, model, batch, **_: scored(batch))
        monkeypatch.setattr(rl.PPOTrainer, 'log_mean', lambda self, **numbers: logged.update({name: float(x) for name, x in numbers.items()}))
        return made, logged
    return make


def part(mask=MASK, **others):
    "A micro-batch of two texts, by TRL's names."
    zeros = torch.zeros(2, 3)
    return dict(completion_mask=mask, minibatch_tokens=torch.tensor(mask.sum()), old_per_token_logps=zeros, ref_per_token_logps=zeros, advantages=zeros, old_values=zeros, returns=zeros) | others


def test_the_loss_is_the_policys_and_the_critics(learning):
    "Guard: the critic's error is added with its weight, and the step's KL is estimated from the texts of the old policy."
    now, values = torch.tensor([[math.log(2), 0, 0], [0, 0, 5.]]), torch.tensor([[.1, 0, 0], [0, 0, 7.]])
    given = part(returns=torch.tensor([[1., 1, 1], [-1, -1, 0]]), advantages=torch.tensor([[1., 0, 0], [0, 3, 9]]))
    made, logged = learning('ppo', lambda batch: (now, now*0 + 2, values), beta=0.)
    loss = made._compute_loss(None, given)
    error = (.9**2 + 4)/5/2  # clipping takes the larger error, and none has moved beyond .2
    assert loss.item() == pytest.approx(-(1.2 + 3)/5 + .5*error) and logged['value_loss'] == pytest.approx(error)
    assert logged['step_kl'] == pytest.approx((2 - 1 - math.log(2))/5) and logged['entropy'] == pytest.approx(2)
    assert logged['clip_ratio/region_mean'] == pytest.approx(1/5)


@pytest.mark.parametrize('algo', ['ppo', 'grpo'])
def test_the_loss_is_the_mean_over_the_minibatchs_tokens(learning, algo):
    "Guard: micro-batches with 6 tokens and 2; a mean of their means would count the tokens of the short one three times."
    masks = (torch.ones(2, 3), torch.tensor([[1., 0, 0]]*2))
    losses = (1., 4.)
    returns = (1., 3.)
    parts = [part(mask, advantages=-loss*mask, returns=back*mask, minibatch_tokens=torch.tensor(8)) for mask, loss, back in zip(masks, losses, returns)]
    zeros = torch.zeros(2, 3)
    made, _ = learning(algo, lambda batch: (zeros, zeros, zeros if algo == 'ppo' else None))
    total = sum(made._compute_loss(None, one).item() for one in parts)
    policy, error = (6*1 + 2*4)/8, (6*.5 + 2*4.5)/8
    assert total == pytest.approx(policy + (made.args.value_weight*error if algo == 'ppo' else 0))


def test_what_only_trls_own_loss_reads_is_refused(tmp_path):
    "Guard: a setting that changes nothing, taken without a word, is a comparison of a policy with itself."
    for name, value in dict(scale_rewards='none', epsilon_high=.28, importance_sampling_level='sequence').items():
        with pytest.raises(ValueError, match=f'{name} changes nothing here'): algorithms.rl_config(PROFILE, tmp_path, **{name: value})


def test_a_rollout_holds_whole_minibatches(tmp_path):
    "Guard: a minibatch that begins in one rollout and ends in the next has no mean."
    odd = replace(PROFILE, rl_batch=5*PROFILE.rl_micro_batch)
    assert algorithms.rl_config(odd, tmp_path).gradient_accumulation_steps == 1
    assert algorithms.rl_config(PROFILE, tmp_path).gradient_accumulation_steps == 4
    with pytest.raises(ValueError, match='no whole number of minibatches'): algorithms.rl_config(odd, tmp_path, gradient_accumulation_steps=2)


def test_a_claim_said_twice_is_known_twice():
    "Guard: at the first end of a claim nobody knows that it will come again; the critic would foresee the text."
    scene = sim.make_scene('put_on', 'L0', 0)
    claim = f'The {scene.bodies[0].name} is at {sim.loc_text(*scene.bodies[0].place)}'
    text = f'<think>{claim}. Well. {claim}. {claim}, 3 cm away.'
    ends = [claim.end for claim, _ in critic.claims_due(text, scene) if claim.true]
    assert ends == [m.end() for m in re.finditer(re.escape(claim), text)]
    false = [end for end, name in critic.privileged_facts(text, scene) if name == 'false claim']
    assert false == [len(text) - 1]


def test_thinks_borrow_from_another_scene_of_their_task():
    "Guard: a think of another task is nonsense in any case, and one of the same scene is as good as the own."
    scenes = [('swap', 'L0', 1), ('sort', 'L0', 1), ('swap', 'L0', 1), ('swap', 'L0', 2), ('sort', 'L1', 1), ('stack', 'L0', 1)]
    assert credit.lenders(scenes) == [3, 4, 3, 2, 1, 4]
    assert credit.lenders(scenes[:1]) == [0] and credit.lenders([]) == []


def episodes(**rates):
    "A ledger of four rollouts: task: successes in each, of ten."
    counts = [(task, update, n) for task, each in rates.items() for update, n in enumerate(each, 1)]
    return pd.DataFrame([dict(task=task, update=update, success=i < n) for task, update, n in counts for i in range(10)])


def test_a_curriculum_asks_for_what_sometimes_succeeds():
    "Guard: half evenly, half by p(1 − p): a task that always succeeds has as little to teach as one that never does."
    found = ledger.shares(episodes(never=[0]*4, half=[5]*4, always=[10]*4), 5, ['never', 'half', 'always'])
    p = np.array([1, 21, 41])/42  # one success and one failure are added
    assert np.allclose(found, .5/3 + .5*p*(1 - p)/(p*(1 - p)).sum()) and found[0] == pytest.approx(found[2]) and found[1] > 2*found[0]


def test_a_curriculum_looks_at_the_last_four_rollouts():
    "Guard: the four before the one to come, and no older, no later one."
    changed = episodes(a=[0, 5, 5, 5, 5, 0], b=[0, 0, 0, 0, 0, 0])
    recent = episodes(a=[5]*4, b=[0]*4)
    assert np.allclose(ledger.shares(changed, 6, ['a', 'b']), ledger.shares(recent, 5, ['a', 'b']))


def test_rl_trains_on_scenes_of_its_own_split(tmp_path, monkeypatch):
    "Guard: every seed of RL has scenes of its own, none of them of another split."
    class Enough(Exception): "All that is wanted."
    def stop(n, tasks, levels, seed): raise Enough(seed)
    monkeypatch.setattr(rl, 'spread', stop)
    store = Store(tmp_path/'run', PROFILE)
    (store.path('sft')/'adapter_config.json').write_bytes((SHIPPED/'sft'/'adapter_config.json').read_bytes())
    firsts = []
    for seed in (0, 1, 2):
        with pytest.raises(Enough) as found: rl.rl_trainer(store, None, seed=seed)
        firsts += found.value.args
    assert [split_of(first) for first in firsts] == ['rl']*3 and np.diff(firsts).tolist() == [rl.SEED_SCENES]*2


def test_what_the_critic_is_told_by_hand():
    "Guard: true and false claims, strange places, right and wrong steps, each where its text ends."
    place = sim.to_metres
    bodies = (sim.Body('block', 'red', *place(30, 20)), sim.Body('pad', 'green', *place(30, 40)))
    scene = sim.Scene('put_on', 'L0', 0, '', bodies, ((0, 1),))
    parts = [('<think>The red block is at <loc30>', None), ('<loc20>', 'made'),
             ('. The green pad is at <loc12>', 'strange place'), ('<loc40>', 'strange place'),
             ('. So the red block goes onto the green pad', 'made'), ('.</think>', None), ('<action>', 'acts'),
             ('pick <loc30><loc21>', 'right step'), ('; pick <loc30><loc40>', 'wrong step'), ('</action>', None)]
    ends = np.cumsum([len(text) for text, _ in parts])
    expected = [(end, name) for end, (_, name) in zip(ends, parts) if name]
    assert sorted(critic.privileged_facts(''.join(text for text, _ in parts), scene)) == sorted([*expected, (ends[3], 'false claim')])
    known = critic.facts([text for text, _ in parts], scene)
    assert known[:, critic.PRIVILEGED.index('made')] == pytest.approx([0, 0] + [1/3]*3 + [2/3]*5)
    assert known[:, critic.PRIVILEGED.index('right step')].tolist() == [0]*8 + [.5]*2
    assert known[:, critic.PRIVILEGED.index('false claim')].tolist() == [0]*4 + [1]*6


def broken(text, rng):
    "A text with some words and places of another."
    words = text.replace('<', ' <').split(' ')
    return ''.join(f' {w}'.replace(' <', '<') for w in [words[rng.integers(len(words))] if rng.random() < .15 else w for w in words])


@pytest.mark.parametrize('task', TASKS)
def test_facts_are_known_no_sooner_than_they_are_said(task):
    tokenizer, rng = load_processor(PROFILE).tokenizer, np.random.default_rng(0)
    for seed in range(3):
        scene = sim.make_scene(task, 'L0', seed)
        right = expert(scene)
        for text in (right, broken(right, rng), broken(right, rng)):
            pieces = [tokenizer.decode([i]) for i in tokenizer(text, add_special_tokens=False).input_ids]
            whole = critic.facts(pieces, scene)
            assert whole[0].sum() == 2 and (np.diff(whole, axis=0) >= 0).all()
            for k in range(len(pieces)): assert np.array_equal(critic.facts([*pieces[:k], '.', '<loc00><loc63>'], scene)[:k + 1], whole[:k + 1]), (k, pieces)
        assert {name for _, name in critic.privileged_facts(right, scene)} <= {'made', 'right step', 'acts'}


COLOURS = ('red', 'blue', 'green', 'yellow', 'purple')


def bandit(algo, folder, updates, reward, rate=3e-3, **settings):
    "One block on the table, one word to say: its colour. All other words are forbidden; the untaught base is right in less than half."
    seed_all(0)
    processor, rng = load_processor(PROFILE), np.random.default_rng(0)
    words = [processor.tokenizer.convert_tokens_to_ids(f'Ġ{c}') for c in COLOURS]
    assert len(set(words)) == 5 and processor.tokenizer.unk_token_id not in words
    profile = replace(PROFILE, rl_batch=60, rl_micro_batch=30, rl_epochs=2, max_new_tokens=1, rl_learning_rate=rate)
    config = algorithms.rl_config(profile, folder, algo, updates, beta=0., privileged=False, save_strategy='no', lr_scheduler_type='linear', **settings)
    texts = config.num_generations
    body = sim.make_scene('put_on', 'L0', 0).bodies[0]
    def scene(i): return replace(sim.make_scene('put_on', 'L0', i), bodies=(replace(body, kind='block', colour=COLOURS[i % 5], x=float(rng.uniform(.4, .6)), y=float(rng.uniform(-.15, .15))),))
    images = [Image.fromarray(draw_scene((scene(i), PROFILE.image_size))) for i in range(100)]
    order = rng.integers(0, 100, updates*60//texts)
    rows = Dataset.from_dict(dict(number=order.tolist())).with_transform(lambda rows: dict(prompt=[chat('Which colour is the block?') for _ in rows['number']], image=[images[n] for n in rows['number']], colour=[COLOURS[n % 5] for n in rows['number']]))
    model = load_model(profile, trainable=True)
    config.generation_kwargs = dict(suppress_tokens=[i for i in range(model.get_base_model().config.text_config.vocab_size) if i not in words])
    history = []
    class Colours:
        "Says what came of each word."
        state = ()
        def written(self, rows, trainer):
            read = trainer.read([row['prompt'] for row in rows], [row['image'] for row in rows])
            with trainer.clock('generate'): drawn, texts = trainer.write(read)
            return rl.Written([row['colour'] for row in rows], read, drawn, texts, None)
        def came(self, written):
            history.append([float(text.strip() == name) for text, name in zip(written.texts, written.about)])
            return pd.DataFrame(dict(reward=[reward(h) for h in history[-1]]))
        def keep(self, table, update): return {}
    trainer = rl.PPOTrainer(model, Colours(), config, rows, processing_class=processor)
    trainer.remove_callback(PrinterCallback)
    return trainer, history


@pytest.mark.parametrize('algo, updates', [pytest.param('ppo', 20, marks=pytest.mark.long), ('grpo', 16), pytest.param('rloo', 16, marks=pytest.mark.long)])
def test_bandit_is_solved(algo, updates, tmp_path):
    "One text per picture and a critic that starts at zero take PPO longer than four texts that are each other's baseline."
    trainer, history = bandit(algo, tmp_path, updates, lambda right: 2*right - 1)
    trainer.train()
    shares = [np.mean(h) for h in history]
    assert shares[0] < .6 and np.mean(shares[-5:]) >= .95, [round(s, 2) for s in shares]


def test_constant_reward_moves_nothing_but_the_critic(tmp_path):
    trainer, _ = bandit('ppo', tmp_path, 1, lambda right: 1.)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    moved = {n for n, p in trainer.model.named_parameters() if n in before and not torch.equal(p, before[n])}
    assert moved == {'value_head.out.weight', 'value_head.out.bias'}


def test_gradient_at_ratio_one_is_the_policy_gradient(tmp_path):
    trainer, _ = bandit('ppo', tmp_path, 1, lambda right: 2*right - 1)
    whole, seen = trainer._compute_loss, []

    def compare(model, inputs):
        with torch.no_grad(): inputs['old_per_token_logps'] = trainer.score(model, inputs)[0]  # writing knows it but for rounding
        loss, mask = whole(model, inputs), inputs['completion_mask']
        if not seen:
            weights = [p for n, p in model.named_parameters() if p.requires_grad and 'value_head' not in n]
            plain = -(inputs['advantages']*trainer.score(model, inputs)[0]*mask).sum()/mask.sum()
            seen.extend(torch.autograd.grad(x, weights, retain_graph=True, allow_unused=True) for x in (loss, plain))
        return loss
    trainer._compute_loss = compare
    trainer.train()
    pairs = [(a, b) for a, b in zip(*seen) if b is not None]
    assert max(b.abs().max().item() for _, b in pairs) > 0
    for a, b in pairs: torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_an_algorithm_learns_by_its_baseline_whatever_its_name(tmp_path, monkeypatch):
    "Guard: one of one's own whose name did not begin with ppo had no critic, and every advantage was 0 without a word."
    monkeypatch.setitem(stores.ALGORITHMS, 'mine', None)  # gone afterwards
    monkeypatch.setitem(stores.MAKES, 'rl/mine', None)
    stores.add_algorithm('mine', 'adapter of mine', baseline='critic', lam=.9)
    trainer, _ = bandit('mine', tmp_path, 1, lambda right: 2*right - 1)
    trainer.train()
    assert trainer.value_head and trainer.batch['advantages'].abs().max() > 0


@pytest.mark.parametrize('settings, said', [({}, 'has no baseline'), (dict(baseline='ppo'), 'has no baseline'), (dict(baseline='group', num_generations=1), 'num_generations=2')])
def test_an_algorithm_that_could_learn_nothing_is_refused_in_one_line(settings, said):
    with pytest.raises(UserError, match=said) as refused: stores.add_algorithm('mine', 'adapter of mine', **settings)
    assert '\n' not in str(refused.value) and 'mine' not in stores.ALGORITHMS and 'rl/mine' not in stores.MAKES


def test_value_head_is_saved_and_restored_bit_by_bit(tmp_path):
    trainer, _ = bandit('ppo', tmp_path/'a', 1, lambda right: 2*right - 1)
    trainer.train()
    trainer.save_model(tmp_path/'saved')
    fresh, _ = bandit('ppo', tmp_path/'b', 1, lambda right: 1.)
    assert not torch.equal(fresh.value_head.out.weight, trainer.value_head.out.weight)
    fresh._load_from_checkpoint(str(tmp_path/'saved'))
    for name, value in trainer.value_head.state_dict().items(): assert torch.equal(value, fresh.value_head.state_dict()[name])


def test_contribution_is_the_difference_that_the_own_think_makes(tmp_path, monkeypatch):
    profile = replace(PROFILE, rl_batch=8, rl_micro_batch=4)
    store, pool = Store(tmp_path/'run', profile), SimPool(0)
    seed_all(0)
    load_model(profile, trainable=True).save_pretrained(store.path('sft'))
    trainer = rl.rl_trainer(store, pool, 'ppo+credit', updates=1)
    scenes = spread(4, ['put_on'])
    experts = [expert(s) for s in scenes]
    judged = trainer.source.judged(scenes, experts)
    thinks, heard = judged.think.tolist(), []

    def obedient(model, processor, images, instructions, starts, *args):
        "A policy that does what the think says: with the own think the right thing, with another nothing."
        heard.extend(starts)
        return [f'<think>{t}</think>' + (e.split('</think>')[1] if s == f'<think>{t}</think>' else '<action>pick <loc0><loc0>; place <loc1><loc1></action>')
                for s, t, e in zip(starts, np.repeat(thinks, 2), np.repeat(experts, 2))]
    monkeypatch.setattr(rl, 'write', obedient)
    written = rl.Written(scenes, None, None, experts, [Image.new('RGB', (128, 128))]*4)
    gained = trainer.source.gained(written, judged, trainer)
    assert heard[:8] == [f'<think>{t}</think>' for t in np.repeat(thinks, 2)] and heard[8] == f'<think>{thinks[-1]}</think>'
    assert all(g >= 2 for g in gained.tolist())
    ids = trainer.processing_class.tokenizer([thinks[0] + '</think><action>pick <loc0><loc0></action>'], add_special_tokens=False, return_tensors='pt').input_ids
    carries = credit.thinking(ids, trainer.processing_class.tokenizer.convert_tokens_to_ids('</think>'))[0]
    assert trainer.processing_class.tokenizer.decode(ids[0][carries == 1]).endswith('</think>') and 0 < carries.sum() < len(carries)


def test_a_curriculum_resumes_with_the_same_scenes(tmp_path):
    profile = replace(PROFILE, rl_batch=8, rl_micro_batch=4, max_new_tokens=16)
    pool = SimPool(0)
    tables = []
    for name, parts in dict(whole=[3], half=[2, 3]).items():
        store = Store(tmp_path/name, profile)
        seed_all(0)
        load_model(profile, trainable=True).save_pretrained(store.path('sft'))
        for i, updates in enumerate(parts): rl.train_rl(store, pool, updates=updates, resume=bool(i), curriculum=True, num_generations=1)
        tables.append(pd.read_parquet(store.run/'rl/ppo/rollouts.parquet'))
    whole, half = tables
    even = spread(24, seed=int(whole.seed.min()))
    assert [(s.task, s.seed) for s in even[:8]] == list(zip(whole.task[:8], whole.seed[:8])) and [s.task for s in even[8:]] != list(whole.task[8:])
    assert whole[['task', 'seed', 'update', 'output']].equals(half[['task', 'seed', 'update', 'output']]) and not whole.duplicated(['task', 'seed']).any()
    with pytest.raises(UserError, match='curriculum'): rl.train_rl(store, pool, updates=4, resume=True)


def test_a_policy_that_solves_nothing_stops_a_long_training(tmp_path):
    "Guard: `check_start` in `train_rl`: one line before anything is loaded; a few updates, or an SFT that solves something, may begin."
    store = Store(tmp_path/'run', replace(PROFILE, rl_updates=40))
    log = store.path('sft')/'log.json'
    log.write_text('[{"step": 50, "eval_success": 0.0}, {"step": 94, "eval_success": 0.0278}]', encoding='utf-8')
    with pytest.raises(UserError, match='solved 3% of its validation scenes and RL needs 5%'): rl.train_rl(store, None)
    with pytest.raises(UserError, match='no SFT adapter'): rl.train_rl(store, None, updates=1)
    log.write_text('[{"step": 50, "eval_success": 0.0}, {"step": 94, "eval_success": 0.0833}]', encoding='utf-8')
    with pytest.raises(UserError, match='no SFT adapter'): rl.train_rl(store, None)


def test_texts_are_dealt_once_each_and_cut_where_the_longest_of_them_ends():
    "Guard: a text that is dealt twice or cut short teaches something else."
    lengths = torch.tensor([5, 1, 7, 3, 2, 6, 4, 7])
    mask = (torch.arange(7) < lengths[:, None]).long()
    batch = dict(prompt_ids=torch.zeros(8, 7), scene=torch.arange(8), completion_mask=mask, completion_ids=torch.arange(8)[:, None].expand(8, 7), token_type_ids=torch.zeros(8, 14),
                 pixel_values=torch.zeros(8, 7, 2), facts=torch.zeros(8, 7, 3), advantages=torch.arange(8.), num_images=[1]*8, num_items_in_batch=mask.sum())
    torch.manual_seed(0)
    dealt = algorithms.deal(batch, 4, 2)
    texts = [part['completion_ids'][:, 0].tolist() for part in dealt]
    assert sorted(sum(texts, [])) == list(range(8)) and [len(t) for t in texts] == [2]*4
    for part, some in zip(dealt, texts):
        longest = lengths[some].max().item()
        assert part['completion_mask'].shape == (2, longest) and part['completion_mask'].sum() == lengths[some].sum() and part['advantages'].tolist() == some
        assert part['facts'].shape == (2, longest, 3) and part['token_type_ids'].shape == (2, 7 + longest)
        assert part['prompt_ids'].shape == (2, 7) and part['pixel_values'].shape == (2, 7, 2) and part['num_images'] == [1, 1]
        assert part['num_items_in_batch'] == mask.sum()
    for two in (dealt[:2], dealt[2:]): assert {int(part['minibatch_tokens']) for part in two} == {sum(int(part['completion_mask'].sum()) for part in two)}
    assert max(lengths[texts[0]]) <= min(lengths[texts[1]]) and max(lengths[texts[2]]) <= min(lengths[texts[3]])  # of like length, within a minibatch
    assert [part['completion_ids'][:, 0].tolist() for part in algorithms.deal(batch, 4, 2)] != texts


@pytest.mark.parametrize('dtype, temperature, near', [('float32', 1., 1e-4), ('float32', .7, 1e-4), ('float16', 1., .02)])
def test_what_was_known_when_it_was_written_is_what_reading_it_says(tmp_path, dtype, temperature, near):
    "Guard: old log-probabilities and values are not computed again; a token off, another temperature, a barred id or the hidden state after the token would make them those of other tokens."
    small = replace(PROFILE, rl_batch=24, rl_micro_batch=4, max_new_tokens=70, dtype=dtype)
    store = Store(tmp_path/'run', small)
    shutil.copytree(SHIPPED/'sft', store.path('sft'), dirs_exist_ok=True)
    trainer = rl.rl_trainer(store, SimPool(0), updates=1, temperature=temperature, beta=0.)
    torch.nn.init.normal_(trainer.value_head.out.weight)
    trainer.model.train()
    rollout = trainer.roll_out([trainer.train_dataset[i//4] for i in range(24)])
    lengths = rollout.mask.sum(1)
    assert lengths.min() + 8 < lengths.max() and rollout.reference is None  # some left the batch early
    with torch.no_grad(): read, _, values = trainer.score(trainer.model, rollout.batch, critic=trainer.value_head)
    for written, said in ((rollout.old, read), (rollout.values, values)): torch.testing.assert_close(written*rollout.mask, said*rollout.mask, atol=near, rtol=near)
    assert (rollout.old*rollout.mask).sum() < -10 and rollout.values.std() > .01


def test_texts_scored_by_length_score_as_they_stand(tmp_path):
    "Guard: rows of a rollout must find their own log-probabilities and values again."
    small = replace(PROFILE, rl_batch=8, rl_micro_batch=2, max_new_tokens=12)
    store, pool = Store(tmp_path/'run', small), SimPool(0)
    torch.manual_seed(0)
    load_model(small, trainable=True).save_pretrained(store.path('sft'))
    trainer = rl.rl_trainer(store, pool, updates=1)
    torch.nn.init.normal_(trainer.value_head.out.weight)
    part = trainer._prepare_inputs([trainer.train_dataset[i//4] for i in range(8)])
    batch = trainer.batch
    mask = batch['completion_mask'].clone()
    for i in range(8): mask[i, 1 + (5*i) % mask.shape[1]:] = 0  # of all lengths
    cut = batch | dict(completion_mask=mask)
    def score(size):
        with torch.no_grad(): return [x*mask for x in trainer.score(trainer.model, cut, size, entropy=True, critic=trainer.value_head)]
    for three, all_ in zip(score(3), score(None)): torch.testing.assert_close(three, all_, atol=1e-4, rtol=1e-4)
    assert part['completion_mask'].sum() > 0


def test_what_is_held_back_is_counted_by_the_sign_of_its_advantage():
    "Guard: `report_step`. Below 1 - clip a ratio is beyond the region only if the advantage would push it further down, above 1 + clip only up."
    logged, change = {}, torch.tensor([[.5, .5, 2., 2., 1.]]).log()
    trainer = SimpleNamespace(args=SimpleNamespace(epsilon=.2), log_mean=lambda **found: logged.update(found))
    advantages, mask = torch.tensor([[-1., 1., -1., 1., 1.]]), torch.ones(1, 5)
    rl.ReportingTrainer.report_step(trainer, change, torch.zeros(1, 5), advantages, mask)
    assert logged['clip_ratio/region_mean'] == pytest.approx(2/5)
    advantages[0, 0] = 1.  # what was pushed down too far is now to be pulled back
    rl.ReportingTrainer.report_step(trainer, change, torch.zeros(1, 5), advantages, mask)
    assert logged['clip_ratio/region_mean'] == pytest.approx(1/5)


def test_a_few_texts_of_a_task_are_not_believed():
    "Guard: `RIDGE`. A fact of all tasks alike is worth what it earned; one of a single task is doubted like a hundred tokens that earned nothing."
    width = critic.facts_width()
    alike = len(critic.PRIVILEGED)
    for fact, worth in ((0, 1.), (alike, 50/150)):
        squares, products = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
        squares[fact, fact], products[fact] = 50., 50.  # fifty tokens, each of which earned 1
        found = critic.ValueHead(4, width).fitted(squares, products)
        assert found[fact].item() == pytest.approx(worth, rel=1e-3) and not found[torch.arange(width) != fact].any()


@pytest.fixture(scope='module')
def scenes_of_four(tmp_path_factory):
    "A trainer after a rollout of four scenes with four texts each, in two of which all texts earned the same; no KL."
    small = replace(PROFILE, rl_batch=16, rl_micro_batch=4, max_new_tokens=20)
    store = Store(tmp_path_factory.mktemp('four')/'run', small)
    seed_all(0)
    model = load_model(small, trainable=True)
    for name, weights in model.named_parameters():
        if 'lora_B' in name: torch.nn.init.normal_(weights, std=.02)
    model.save_pretrained(store.path('sft'))
    trainer = rl.rl_trainer(store, SimPool(0), 'grpo', updates=1, beta=0.)
    trainer.model.train()
    earned, judge = [.7]*4 + [1, -1, -1, .5] + [-1.]*4 + [-1, -1, 1, -1], ledger.judge
    with pytest.MonkeyPatch.context() as given:
        given.setattr(ledger, 'judge', lambda *asked: [replace(e, reward=r) for e, r in zip(judge(*asked), earned)])
        trainer._generate_and_score_completions([trainer.train_dataset[i//4] for i in range(16)])
    return trainer


def slope(trainer, parts):
    "The gradient of some micro-batches."
    weights = [p for p in trainer.model.parameters() if p.requires_grad]
    loss = sum(trainer._compute_loss(trainer.model, part) for part in parts)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])


def test_texts_that_teach_nothing_are_left_out_and_the_gradient_stays(scenes_of_four, monkeypatch):
    "Guard: half of the texts have no advantage; the mean of a minibatch counts their tokens all the same. With a KL or a critic every text teaches."
    monkeypatch.setattr(rl.PPOTrainer, 'log_mean', lambda self, **numbers: None)
    trainer = scenes_of_four
    found = []
    asked = []
    for only in (False, True):
        torch.manual_seed(0)
        parts = algorithms.deal(trainer.batch, 4, 1, only)
        found.append(slope(trainer, parts))
    assert len(parts) == 4 and sum(len(part['completion_mask']) for part in parts) == 8
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-4)
    assert found[0].norm() > 1e-3
    nothing = algorithms.deal(trainer.batch | dict(advantages=trainer.batch['advantages']*0), 4, 2, True)
    assert [len(part['completion_mask']) for part in nothing] == [1]*4  # a step is taken all the same
    monkeypatch.setattr(rl, 'deal', lambda batch, parts, minibatches, only: asked.append(only) or [batch])
    for trainer.beta, head in ((0., None), (.02, None), (0., torch.nn.Linear(1, 1))):
        monkeypatch.setattr(rl.PPOTrainer, 'value_head', head)
        monkeypatch.setattr(rl.GRPOTrainer, '_prepare_inputs', lambda self, rows: None)
        trainer._step = 0
        trainer._prepare_inputs([])
    trainer.beta = 0.
    assert asked == [True, False, False]


def test_texts_of_a_scene_are_dealt_together():
    "Guard: a scene is cut where a minibatch ends, and nowhere else; scenes of like length share a micro-batch."
    lengths = torch.tensor([9, 1, 2, 2, 6, 7, 3, 3])
    mask = (torch.arange(9) < lengths[:, None]).long()
    batch = dict(prompt_ids=torch.zeros(8, 2), completion_mask=mask, scene=torch.arange(8)//2 + 5, number=torch.arange(8))
    assert [part.tolist() for part in algorithms.by_length(torch.arange(8), lengths, batch['scene'], 2)] == [[2, 3, 6, 7], [0, 1, 4, 5]]
    for seed in range(5):
        torch.manual_seed(seed)
        dealt = [part['number'].tolist() for part in algorithms.deal(batch, 4, 2)]
        assert sorted(sum(dealt, [])) == list(range(8)) and all(b == a + 1 and not a % 2 for a, b in dealt)


@pytest.mark.parametrize('window', [512, 40])
def test_a_prompt_that_texts_share_changes_neither_loss_nor_gradient(scenes_of_four, monkeypatch, window):
    "Guard: a text that saw another, positions that went on, or the token before a first one elsewhere would teach something else; with a window that is shorter than the prompt too."
    trainer = scenes_of_four
    logged = {}
    found = []
    monkeypatch.setattr(trainer.model.config.get_text_config(), 'sliding_window', window)
    monkeypatch.setattr(rl.PPOTrainer, 'log_mean', lambda self, **numbers: logged.update({name: float(x) for name, x in numbers.items()}))
    assert trainer.shares and trainer.batch['scene'].tolist() == [i//4 for i in range(16)]
    head = critic.ValueHead(trainer.model.get_base_model().config.get_text_config().hidden_size)
    torch.nn.init.normal_(head.out.weight, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    batch = trainer.batch | dict(advantages=torch.randn_like(trainer.batch['old_per_token_logps']))
    for trainer.shares in (False, True):
        torch.manual_seed(2)
        parts = algorithms.deal(batch, 2, 1)
        if trainer.shares: assert len(algorithms.share_prompts(parts[0]).ids) == 2
        with torch.no_grad(): said = trainer.score(trainer.model, parts[0], 4, entropy=True, critic=head)
        found.append((*(x*parts[0]['completion_mask'] for x in said), slope(trainer, parts), torch.tensor([logged['entropy'], logged['step_kl']])))
    for apart, shared in zip(*found): torch.testing.assert_close(shared, apart, atol=1e-5 if apart.dim() == 1 else 1e-4, rtol=1e-4)
    assert found[0][3].norm() > 1e-3


def test_prompts_that_are_read_once_are_written_after_alike(scenes_of_four):
    "Guard: the same numbers draw the same texts, whether four texts share a prompt or each reads it."
    trainer, found = scenes_of_four, []
    rows = [trainer.train_dataset[i//4] for i in range(16)]
    read = trainer.read([row['prompt'] for row in rows], [row['image'] for row in rows])
    for trainer.shares in (False, True):
        torch.manual_seed(4)
        found.append(trainer.write(read)[1])
    assert found[0] == found[1] and len(set(found[0])) > 8

