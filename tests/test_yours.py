"What is one's own: each cell of page 13 makes the entries that the page counts, and whoever lists such things knows it."
import ast
import json
import re
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from thinkact_nb import evaluate, family, language, ledger, options, pictures, ppo, report, reward, share, sim, stages, store, tasks, think
from thinkact_nb import env
from thinkact_nb.env import UserError
from thinkact_nb.pool import SimPool

PAGE = {cell['id']: ''.join(cell['source']) for cell in json.loads((Path(__file__).parent.parent/'nbs/workshop/yours.ipynb').read_text(encoding='utf-8'))['cells']}
CELLS = dict(task='d1300006', term='d1300009', algorithm='d130000c', policy='d130000f', intervention='d1300012', base='d1300015')
REGISTRIES = (sim.TASKS, reward.TERMS, store.BASELINES, store.ALGORITHMS, store.MAKES, evaluate.POLICIES, think.THINKS, family.FAMILIES, env.PROFILES)
LAID = sim.make_scene('put_on', 'L0', 3)


@pytest.fixture(autouse=True)
def yours(tmp_path, monkeypatch):
    "Every cell of the page, run after everything was imported."
    before = [dict(registry) for registry in REGISTRIES]
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    names = {}
    exec(PAGE['d1300004'], names)
    for cell in CELLS.values(): exec(PAGE[cell], names)
    yield names
    for registry, was in zip(REGISTRIES, before):
        registry.clear()
        registry.update(was)


def entries(cell):
    "How many entries a cell makes: names that it gives to a registry."
    found = list(ast.walk(ast.parse(PAGE[cell])))
    given = [target for node in found if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Subscript)]
    return len(given) + sum(isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'add_algorithm' for node in found)


def test_each_takes_the_entries_that_the_page_says():
    "Guard: a reward term was known in fourteen places, a policy in five modules."
    counts = {kind: entries(cell) for kind, cell in CELLS.items()}
    assert counts == dict(task=1, term=1, algorithm=2, policy=1, intervention=1, base=2)
    rows = {kind: [int(n) for n in re.findall(r'\d', said.split(',')[0] if kind != 'algorithm' else said)] for kind, said in re.findall(r'(?m)^\| ([\w ]+) \| `\w+`(?:, `\w+`)* \| (.*?) \|', PAGE['d1300002'])}
    assert {kind.split()[-1]: found[-1] for kind, found in rows.items()} == counts


def test_options_take_what_is_yours_and_messages_name_it():
    options.Scenes(tasks=('lay',), profile='mine').check()
    stages.Eval(arms=('reader', 'grpo+median'), tasks=('lay',)).check()
    asked = stages.Ppo(algo='grpo+median', set=('time=0.02', 'lam=.9'), safety=.5)
    asked.check()
    assert vars(asked.weights()) == dict(efficiency=0, safety=.5, time=.02) and asked.numbers() == dict(lam=.9)
    for wrong, name in ((stages.Ppo(algo='best'), 'grpo\\+median'), (stages.Eval(arms=('best',)), 'reader.*grpo\\+median'), (options.Scenes(tasks=('best',)), 'lay'),
                        (options.Common(profile='best'), 'mine'), (stages.Ppo(set=('tine=1',)), 'did you mean time')):
        with pytest.raises(UserError, match=name): wrong.check()
    for wrong in (stages.Ppo(set=('safety=.1',)), stages.Ppo(set=('time=-1',)), stages.Ppo(safety=-1.)):
        with pytest.raises(UserError): wrong.check()
    assert [f'--{name}' for name in reward.TERMS if not hasattr(stages.Ppo, name)] == ['--time']  # those of the package have options of their own
    assert all(getattr(stages.Ppo, name) == term.weight for name, term in reward.TERMS.items() if hasattr(stages.Ppo, name))


def test_a_term_is_in_reward_columns_log_report_and_cards():
    with SimPool(0) as pool: episode, = reward.judge([LAID], [language.expert(LAID)], pool, lambda text, **_: type('Ids', (), dict(input_ids=text.split())))
    table = reward.episode_table([episode])
    columns = list(table)
    assert columns[columns.index('r_success'):][:5] == ['r_success', 'r_efficiency', 'r_safety', 'r_time', 'reward']
    assert table.r_time[0] < 0 and table.reward[0] == pytest.approx(1 + .25*table.r_safety[0] + .01*table.r_time[0])
    assert ledger.summary(table)['r_time'] == table.r_time[0]
    log = ledger.log_rows([dict(reward=1., step=2, r_time=-3.)], type('Config', (), dict(num_generations=1, logging_steps=2)))
    assert log[0]['r_time'] == -3 and list(log[0])[:6] == ['update', 'reward', 'success', 'r_safety', 'r_time', 'r_efficiency']
    assert 'r_time' in report.measured(table) and 'r_time' not in report.measured(table.drop(columns='r_time'))
    assert report.means_shown([table.iloc[0].to_dict()])['r_time'] == 'time'
    assert 'r_time' in sum((keys for keys, _ in report.rl_curves()), [])
    assert 'r_time' not in reward.EPISODE  # tables that were written without it are read
    two = pd.concat([table.assign(arm=arm, success=arm == 'b') for arm in 'ab'])
    assert {'r_time_a', 'r_safety_b'} <= set(think.changed(two, 'a', 'b'))
    side = table.iloc[0].to_dict() | dict(policy='a', film='')
    assert re.search(r'safety [+-]\d.\d\d, time -\d.\d\d before their weights', pictures.case_html(pictures.Case(LAID, 'gained', '', side, side), 'thinkact act'))
    assert "time=0.01" in str(reward.RewardWeights())


def test_an_algorithm_has_a_stage_an_arm_and_its_baseline(yours, tmp_path):
    import torch
    made = store.ALGORITHMS['grpo+median']
    assert store.adapters()['grpo+median'] == 'rl/grpo+median' and 'grpo+median' in evaluate.arm_names()
    rollout = ppo.Rollout(ids=None, mask=torch.ones(4, 2), old=None, rewards=torch.tensor([[0, 3.], [0, 1], [0, 0], [0, -1]]))
    assert ppo.targets(rollout, made)['advantages'][:, 0].tolist() == [3, 1, 0, -1]
    assert asdict(made)['baseline'] == 'median'


def test_a_policy_acts_in_one_look_and_in_several():
    from thinkact_nb.turns import run_loop, turn_policy
    small, scenes = env.PROFILES['tiny'], [LAID]
    evaluate.POLICIES['blind'] = evaluate.Policy('blind', '', evaluate.look_by_look(lambda look: ''), sees=False)
    with SimPool(0) as pool: table = run_loop('reader', scenes, pool, small, 2)
    assert table.turns.tolist() == [2] and not table.success.any()
    with pytest.raises(UserError, match="arm 'blind' draws from the scene"): turn_policy('blind')


def test_a_task_is_asked_in_two_languages_and_an_intervention_is_a_kind(yours):
    laid = sim.make_scene('lay', 'L0', 0)
    assert 'pad' in laid.instruction and '패드' in share.told_in_korean(laid)[0]
    assert {scene.task for scene in tasks.spread(20, tuple(sim.TASKS))} >= {'lay'}
    with pytest.raises(UserError, match='shouted'): think.intervene(None, 'sft', 'whispered', [], None)
    assert think.THINKS['shouted'](['a'], [laid], 0) == 'A'


def test_a_family_is_asked_for_what_differs(yours):
    "Guard: a base of another family was known in nine places."
    from types import SimpleNamespace
    from thinkact_nb.family import family_of, forbidden
    said = dict(model_type='gemma3', image_token_index=7, boi_token_index=5, eoi_token_index=6)
    config = SimpleNamespace(**said, mm_tokens_per_image=16, to_dict=lambda: said)
    assert forbidden(config) == [5, 6, 7] and family_of(config).soft_tokens(config, 128) == 16 and not family_of(config).left_out
    with pytest.raises(UserError, match='gemma3n, gemma4, gemma3'): family_of(SimpleNamespace(model_type='qwen'))
