"PPO's arithmetic against plain loops, its gradient against the policy gradient, and a toy that every algorithm must solve."
import sys
from dataclasses import replace
from pathlib import Path

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
from thinkact_nb import ppo, sim
from thinkact_nb.data import expert, spread
from thinkact_nb.env import Store, UserError, get_profile, seed_all
from thinkact_nb.model import chat, load_model, load_processor
from thinkact_nb.reward import episode_table

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


def broken(text, rng):
    "A text with some words and places of another."
    words = text.replace('<', ' <').split(' ')
    return ''.join(f' {w}'.replace(' <', '<') for w in [words[rng.integers(len(words))] if rng.random() < .15 else w for w in words])


@pytest.mark.parametrize('task', sim.TASKS)
def test_facts_are_known_no_sooner_than_they_are_said(task):
    tokenizer, rng = load_processor(PROFILE).tokenizer, np.random.default_rng(0)
    for seed in range(3):
        scene = sim.make_scene(task, 'L0', seed)
        right = expert(scene)
        for text in (right, broken(right, rng), broken(right, rng)):
            pieces = [tokenizer.decode([i]) for i in tokenizer(text, add_special_tokens=False).input_ids]
            whole = ppo.facts(pieces, scene)
            assert whole[0].sum() == 1 and (np.diff(whole, axis=0) >= 0).all()
            for k in range(len(pieces)): assert np.array_equal(ppo.facts([*pieces[:k], '.', '<loc00><loc63>'], scene)[:k + 1], whole[:k + 1]), (k, pieces)
        assert {name for _, name in ppo.told(right, scene)} <= {'true claim', 'right step', 'acts'}


COLOURS = ('red', 'blue', 'green', 'yellow', 'purple')


def bandit(algo, folder, updates, reward, rate=3e-3, **settings):
    "One block on the table, one word to say: its colour. All other words are forbidden, so the untaught base guesses."
    seed_all(0)
    processor, rng = load_processor(PROFILE), np.random.default_rng(0)
    words = [processor.tokenizer.convert_tokens_to_ids(f'Ġ{c}') for c in COLOURS]
    assert len(set(words)) == 5 and processor.tokenizer.unk_token_id not in words
    profile = replace(PROFILE, rl_batch=60, rl_micro_batch=30, rl_epochs=2, max_new_tokens=1, rl_learning_rate=rate)
    config = ppo.rl_config(profile, folder, algo, updates, beta=0., privileged=False, save_strategy='no', lr_scheduler_type='linear', **settings)
    texts = config.num_generations
    body = sim.make_scene('put_on', 'L0', 0).bodies[0]
    def scene(i): return replace(sim.make_scene('put_on', 'L0', i), bodies=(replace(body, kind='block', colour=COLOURS[i % 5], x=float(rng.uniform(.4, .6)), y=float(rng.uniform(-.15, .15))),))
    images = [Image.fromarray(sim.draw_scene((scene(i), PROFILE.image_size))) for i in range(100)]
    order = rng.integers(0, 100, updates*60//texts)
    rows = Dataset.from_dict(dict(number=order.tolist())).with_transform(lambda rows: dict(prompt=[chat('Which colour is the block?') for _ in rows['number']], image=[images[n] for n in rows['number']], colour=[COLOURS[n % 5] for n in rows['number']]))
    model = load_model(profile, trainable=True)
    config.generation_kwargs = dict(suppress_tokens=[i for i in range(model.get_base_model().config.text_config.vocab_size) if i not in words])
    history = []
    def judge(completions, colour, **_):
        history.append([float(c[0]['content'].strip() == name) for c, name in zip(completions, colour)])
        return [reward(h) for h in history[-1]]
    trainer = ppo.PPOTrainer(model, judge, config, rows, processing_class=processor)
    trainer.remove_callback(PrinterCallback)
    return trainer, history


@pytest.mark.parametrize('algo', ['ppo', 'grpo', 'rloo'])
def test_bandit_is_solved(algo, tmp_path):
    trainer, history = bandit(algo, tmp_path, 34, lambda right: 2*right - 1)
    trainer.train()
    shares = [np.mean(h) for h in history]
    assert shares[0] < .4 and np.mean(shares[-5:]) >= .95, [round(s, 2) for s in shares]


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
        loss, mask = whole(model, inputs), inputs['completion_mask']
        if not seen:
            weights = [p for n, p in model.named_parameters() if p.requires_grad and 'value_head' not in n]
            plain = -(inputs['advantages']*trainer._passes[0][0]*mask).sum()/mask.sum()
            seen.extend(torch.autograd.grad(x, weights, retain_graph=True, allow_unused=True) for x in (loss, plain))
        return loss
    trainer._compute_loss = compare
    trainer.train()
    pairs = [(a, b) for a, b in zip(*seen) if b is not None]
    assert max(b.abs().max().item() for _, b in pairs) > 0
    for a, b in pairs: torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


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
    store, pool = Store(tmp_path/'run', profile), sim.SimPool(0)
    seed_all(0)
    load_model(profile, trainable=True).save_pretrained(store.path('sft'))
    trainer = ppo.rl_trainer(store, pool, 'ppo+credit', updates=1)
    scenes = spread(4, ['put_on'])
    experts = [expert(s) for s in scenes]
    judge = trainer.reward_funcs[0]
    judge.here = episode_table(ppo.judge(scenes, experts, pool, trainer.processing_class.tokenizer, judge.weights))
    thinks, heard = judge.here.think.tolist(), []

    def obedient(model, processor, images, instructions, starts, *args):
        "A policy that does what the think says: with the own think the right thing, with another nothing."
        heard.extend(starts)
        return [f'<think>{t}</think>' + (e.split('</think>')[1] if s == f'<think>{t}</think>' else '<action>pick <loc0><loc0>; place <loc1><loc1></action>')
                for s, t, e in zip(starts, np.repeat(thinks, 2), np.repeat(experts, 2))]
    monkeypatch.setattr(ppo, 'write', obedient)
    gained = trainer._contribution([dict(image=Image.new('RGB', (128, 128)))]*4)
    assert heard[:8] == [f'<think>{t}</think>' for t in np.repeat(thinks, 2)] and heard[8] == f'<think>{thinks[-1]}</think>'
    assert all(g >= 2 for g in gained.tolist())
    ids = trainer.processing_class.tokenizer([thinks[0] + '</think><action>pick <loc0><loc0></action>'], add_special_tokens=False, return_tensors='pt').input_ids
    carries = trainer._thinking(ids)[0]
    assert trainer.processing_class.tokenizer.decode(ids[0][carries == 1]).endswith('</think>') and 0 < carries.sum() < len(carries)


def test_a_curriculum_resumes_with_the_same_scenes(tmp_path):
    profile, pool, tables = replace(PROFILE, rl_batch=8, rl_micro_batch=4, max_new_tokens=16), sim.SimPool(0), []
    for name, parts in dict(whole=[3], half=[2, 3]).items():
        store = Store(tmp_path/name, profile)
        seed_all(0)
        load_model(profile, trainable=True).save_pretrained(store.path('sft'))
        for i, updates in enumerate(parts): ppo.train_rl(store, pool, updates=updates, resume=bool(i), curriculum=True)
        tables.append(pd.read_parquet(store.run/'rl/ppo/rollouts.parquet'))
    whole, half = tables
    even = spread(24, seed=int(whole.seed.min()))
    assert [(s.task, s.seed) for s in even[:8]] == list(zip(whole.task[:8], whole.seed[:8])) and [s.task for s in even[8:]] != list(whole.task[8:])
    assert whole[['task', 'seed', 'update', 'output']].equals(half[['task', 'seed', 'update', 'output']]) and not whole.duplicated(['task', 'seed']).any()
    with pytest.raises(UserError, match='curriculum'): ppo.train_rl(store, pool, updates=4, resume=True)
