"Statistics against theory, what may not be paired, and the committed tables against physics."
import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from markupsafe import escape
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from thinkact_nb import cli, evaluate as ev, think as th
from thinkact_nb import options, pictures, report, sim
from thinkact_nb.tasks import spread
from thinkact_nb.language import expert
from thinkact_nb.env import UserError, get_profile
from thinkact_nb.store import Store
from thinkact_nb.reward import EPISODE
from thinkact_nb.pool import SimPool

TABLES = Path(__file__).parent.parent/'thinkact_nb'/'tables'


def table(**arms):
    "Episodes in the scenes of put_on, one 0 or 1 per scene and arm."
    row = dict(task='put_on', level='L0', perturbed='', sample=0, decoding='greedy', version='1', think='', think_tokens=0, grounding=None)
    return pd.DataFrame([dict(row, arm=arm, seed=i, success=bool(s)) for arm, found in arms.items() for i, s in enumerate(found)])


def completed(rows):
    "Rows with all the columns that a table on disk has, each of its kind."
    every = rows.assign(**{column: kind() for column, kind in EPISODE.items() if column not in rows})
    return every.astype(dict(EPISODE))


@pytest.mark.parametrize('change, said', [
    (dict(decoding='sampled'), "decoding of 'a' is greedy and of 'b' sampled"),
    (dict(version='2'), "version of 'a' is 1 and of 'b' 2"),
    (dict(seed=7), "'a' has 2 scenes, 'b' has 2, and they share 0"),
    (dict(perturbed='light'), 'they share 0')], ids=lambda o: str(o))
def test_what_cannot_be_paired(change, said):
    rows = table(a=[1, 0], b=[1, 1])
    for column, value in change.items(): rows.loc[rows.arm == 'b', column] = value + rows.seed if column == 'seed' else value
    with pytest.raises(UserError, match=said.replace("'", '.')): ev.compare(rows, 'a', 'b')


@pytest.mark.parametrize('a, b', [([0]*9, [0]*9), ([1]*9, [1]*9), ([0], [1]), ([1], [1]), ([0]*9, [1]*9)])
def test_extremes_are_defined(a, b):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found, rate = ev.compare(table(a=a, b=b), 'a', 'b'), ev.rates(table(a=a, b=b))
    assert -1 <= found.low <= found.difference <= found.high <= 1 and 0 <= found.p <= 1 and str(found)
    assert ((0 <= rate.low) & (rate.low <= rate.rate) & (rate.rate <= rate.high) & (rate.high <= 1)).all()


def test_mcnemar_and_wilson_are_the_textbook_ones():
    found = ev.compare(table(a=[1]*6 + [0]*30 + [1]*10, b=[0]*6 + [1]*21 + [0]*9 + [1]*10), 'a', 'b')
    assert (found.only_a, found.only_b) == (6, 21) and abs(found.p - binomtest(6, 27).pvalue) < 1e-12
    rate = ev.rates(table(a=[1]*81 + [0]*182)).iloc[0]  # Newcombe 1998, table I: 81 of 263
    assert (round(rate.low, 4), round(rate.high, 4)) == (.2553, .3662)


def test_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(0)
    n = 200
    discordant = .3
    difference = ev.detectable(n, discordant)
    found = rng.multinomial(n, [(discordant - difference)/2, (discordant + difference)/2, 1 - discordant], 2000)
    power = np.mean([binomtest(int(a), int(a + b)).pvalue < .05 for a, b, _ in found])
    assert abs(power - .8) < .03, power


def test_wilson_covers():
    rng = np.random.default_rng(0)
    for p in (.05, .3, .5):
        low, high = proportion_confint(rng.binomial(100, p, 4000), 100, method='wilson')
        assert abs(np.mean((low <= p) & (p <= high)) - .95) < .03


def test_interaction_finds_what_was_put_in_and_nothing_else():
    rng = np.random.default_rng(0)
    own, luck = rng.random(200) < .6, rng.random(200) < .6
    same = table(**{'a:own': own, 'b:own': luck, 'a:none': own*(rng.random(200) < .5), 'b:none': luck*(rng.random(200) < .5)})
    more = table(**{'a:own': own, 'b:own': luck, 'a:none': own, 'b:none': luck*0})
    assert th.interaction(same, 'a', 'b').p[0] > .05 and th.interaction(more, 'a', 'b').p_holm[0] < .001
    assert abs(th.interaction(more, 'a', 'b').difference[0] - luck.mean()) < 1e-9
    with pytest.raises(UserError, match='no interventions'): th.interaction(same, 'a', 'c')


def apart(only_a, only_b, both=0, neither=0):
    "Two arms on the same scenes, by how many only one of them solved."
    return table(a=[1]*only_a + [0]*only_b + [1]*both + [0]*neither, b=[0]*only_a + [1]*only_b + [1]*both + [0]*neither)


def test_a_comparison_by_hand():
    "Guard: which arm is a and which b, and the difference is b's rate minus a's."
    found = ev.compare(apart(2, 12, 5, 1), 'a', 'b')
    assert (found.n, found.a_successes, found.b_successes, found.only_a, found.only_b) == (20, 7, 17, 2, 12)
    assert found.difference == .5 and 0 < found.low < .5 < found.high and abs(found.p - binomtest(2, 14).pvalue) < 1e-12
    assert 'b solved 17 of 20 scenes and a 7: +50 points' in str(found) and 'b alone solved 12, a alone 2' in str(found)
    back = ev.compare(apart(12, 2, 5, 1), 'a', 'b')
    assert 'b is better' in str(found) and 'a is better' in str(back) and back.difference == -.5 and back.high < 0
    assert 'no evidence of a difference' in str(ev.compare(apart(1, 5, 9, 9), 'a', 'b'))


def test_the_interval_of_a_difference_is_that_of_its_mean():
    "Guard: near the normal interval of paired differences for many scenes."
    found = ev.compare(apart(60, 90, 125, 125), 'a', 'b')
    change = np.array([-1]*60 + [1]*90 + [0]*250)
    reach = 1.96*change.std(ddof=1)/20
    assert abs(found.low - (change.mean() - reach)) < .006 and abs(found.high - (change.mean() + reach)) < .006


def test_arms_that_never_differ_may_still_differ_a_little():
    "Guard: with 0 of 100 scenes discordant up to 3.6 % may be (exact, two-sided)."
    found = ev.compare(apart(0, 0, 50, 50), 'a', 'b')
    assert abs(found.high - .0362) < 1e-4 and found.low == -found.high and found.p == 1


def test_detectable_difference_by_hand():
    "Guard: of 8 discordant scenes all must fall on one side, with .05 to share between both sides."
    assert binomtest(0, 8).pvalue < .05 < binomtest(1, 8).pvalue
    share = ev.detectable(8, 1.)  # all scenes discordant: one side's chance x with x**8 + (1 - x)**8 = .8
    side = (1 + share)/2
    assert abs(side**8 + (1 - side)**8 - .8) < 1e-6
    assert ev.detectable(5, 1.) is None and ev.detectable(100, 0.) is None
    assert ev.detectable(100, .3, power=.9) > ev.detectable(100, .3) > ev.detectable(400, .3)


P_VALUES = [binomtest(0, n).pvalue for n in (8, 7, 6)]  # .0078, .0156, .0312
HOLM = [3*P_VALUES[0], 2*P_VALUES[1], 2*P_VALUES[1]]    # the last may not be below the one before


def family():
    "An arm and three others that are better by 8, 7 and 6 scenes of 20."
    return table(sft=[0]*20, ppo=[1]*8 + [0]*12, grpo=[1]*7 + [0]*13, rloo=[1]*6 + [0]*14)


def test_a_family_is_corrected_by_holm():
    "Guard: three comparisons, their correction by hand; Benjamini-Hochberg's would be smaller."
    found = ev.compare_all(family(), [('sft', arm) for arm in ('ppo', 'grpo', 'rloo')])
    assert np.allclose(found.p, P_VALUES, atol=1e-12) and np.allclose(found.p_holm, HOLM, atol=1e-12)


def test_the_report_says_the_corrected_p(tmp_path):
    "Guard: the report's family is corrected by Holm, and its page says so after each comparison."
    store = Store(tmp_path/'run', get_profile('tiny'), new=True)
    numbers = dict.fromkeys(('reward', 'r_success', 'r_efficiency', 'r_safety', 'think_tokens', 'action_tokens', 'contact_force'), 0.)
    rows = family().assign(dropped=False, failure='', weights='', **numbers)
    rows['seed'] += 30_000_000
    completed(rows).to_parquet(store.path('eval')/'episodes.parquet')
    store.push('eval')
    found = report.findings(store)
    assert [c['b'] for c in found['comparisons']] == ['ppo', 'grpo', 'rloo']
    assert np.allclose([c['p_holm'] for c in found['comparisons']], HOLM, atol=1e-12)
    page = report.page(found, [], ('sft', 'ppo'), '', 'run')
    assert re.findall(r'Holm-corrected p = ([\d.]+)\.', page) == ['0.023', '0.031', '0.031']


def test_interventions_are_corrected_by_holm():
    "Guard: one family for all kinds of think, and the costs of each by hand."
    own = [1]*20
    exchanged = {'none': (0, 9), 'random': (0, 7), 'another': (1, 8)}  # scenes that a and b lose
    lost = {f'{arm}:{kind}': [0]*n + [1]*(20 - n) for kind, both in exchanged.items() for arm, n in zip('ab', both)}
    found = th.interaction(table(**{'a:own': own, 'b:own': own}, **lost), 'a', 'b').set_index('kind')
    assert np.allclose(found.loc['another', ['cost_a', 'cost_b', 'difference']].tolist(), [.05, .4, .35])
    p = sorted(found.p)
    assert p[0] < p[1] < .05 and np.allclose(sorted(found.p_holm), np.maximum.accumulate([3*p[0], 2*p[1], p[2]]))
    assert not np.allclose(sorted(found.p_holm), sorted(found.p*3/np.array([1, 2, 3])))


def thinker(name, asked):
    "A policy that writes down who thought; `asked` gets who was made to act, and after what."
    def answer(looks, begun=None):
        if begun: asked.append((name, begun))
        return [f'<think>{name} on {look.scene.seed}</think><action></action>' for look in looks]
    return ev.Policy(name, f'weights of {name}', answer)


def test_in_a_transplant_the_first_arm_thinks_and_the_second_acts(tmp_path):
    "Guard: with the arms exchanged, RL's thinks would be credited with what RL's actions do."
    asked = []
    store = Store(tmp_path/'run', get_profile('tiny'), new=True)
    scenes = spread(2, ['put_on'])
    rows = th.transplant(store, thinker('ppo', asked), thinker('sft', asked), scenes, SimPool(0))
    assert asked == [('sft', ['<think>ppo on 0</think><action>', '<think>ppo on 1</think><action>'])]
    kept = pd.read_parquet(store.path('eval')/'interventions.parquet')
    assert rows.arm.unique().tolist() == kept.arm.unique().tolist() == ['ppo>sft'] and set(kept.weights) == {'weights of sft'}


def test_an_intervention_puts_in_the_think_of_its_kind(tmp_path):
    "Guard: own, none, another scene's and the oracle's think go before the same arm's action."
    asked = []
    store = Store(tmp_path/'run', get_profile('tiny'), new=True)
    scenes = spread(3, ['put_on'])
    kinds = ('own', 'none', 'another', 'first 75 %', 'oracle')
    rows = [th.intervene(store, thinker('ppo', asked), kind, scenes, SimPool(0)) for kind in kinds]
    assert [name for name, _ in asked] == ['ppo']*5 and [set(table.arm) for table in rows] == [{f'ppo:{kind}'} for kind in kinds]
    thinks = [[s.removeprefix('<think>').removesuffix('</think><action>') for s in begun] for _, begun in asked]
    assert thinks[0] == ['ppo on 0', 'ppo on 1', 'ppo on 2'] and thinks[1] == ['']*3
    assert thinks[2] == ['ppo on 1', 'ppo on 2', 'ppo on 0']
    assert thinks[3] == ['ppo on']*3 and thinks[4] == [th.think_in(expert(s)) for s in scenes]
    for none in ('expert', 'random', lambda image, instruction: ''):
        with pytest.raises(UserError, match='has no model'): th.intervene(store, none, 'own', scenes, None)


def test_a_policy_without_a_model_is_given_no_beginning(tmp_path):
    "Guard: the expert would write a whole text of its own, and the table call it another's think."
    with pytest.raises(UserError, match='one that has a model'): ev.act(Store(tmp_path/'run', get_profile('tiny')), 'expert', spread(1), SimPool(0), ['<think></think>'])


def test_rows_are_taken_again_by_what_wrote_them(tmp_path):
    "Guard: of a policy with weights as long as they are the same, of one that reads the scene as long as it writes the same, of any other never."
    store = Store(tmp_path/'run', get_profile('tiny'))
    scenes = spread(2, ['put_on'])
    asked = []
    def policy(weights, sees, said): return ev.Policy('mine', weights, lambda looks, begun=None: asked.append(said) or [said]*len(looks), sees)
    wrote = lambda one: (asked.clear(), ev.evaluate(store, [one], scenes, SimPool(0), resume=True).output[0])[1]
    assert wrote(policy('a', True, 'x')) == 'x' and wrote(policy('a', True, 'y')) == 'x' and wrote(policy('b', True, 'y')) == 'y'
    assert wrote(policy('', True, 'x')) == 'x' and wrote(policy('', True, 'y')) == 'y'
    assert wrote(policy('', False, 'y')) == 'y' and asked == ['y'] and wrote(policy('', False, 'x')) == 'x' and asked == ['x', 'x']


def test_another_think_is_of_the_same_task():
    "Guard: the next scene's think of the same task; of another task only where there is no other."
    scenes = spread(5, ['put_on', 'stack'])
    thinks = [f'{s.task} {i}' for i, s in enumerate(scenes)]
    assert [th.THINKS['another'](thinks, scenes, i) for i in range(5)] == ['put_on 2', 'stack 3', 'put_on 4', 'stack 1', 'put_on 0']
    assert th.THINKS['another'](thinks, scenes[:2], 0) == 'stack 1'


def test_exchanged_entities_exchange_names_and_places():
    "Guard: the block that is asked for and another change names and places, nothing else."
    laid = [('block', 'red', (30, 20)), ('block', 'blue', (40, 25)), ('pad', 'green', (30, 40))]
    bodies = [sim.Body(kind, colour, *sim.to_metres(*place)) for kind, colour, place in laid]
    scene = sim.Scene('put_on', 'L0', 0, '', tuple(bodies), ((0, 2),))
    pad = 'The green pad is at <loc30><loc40>.'
    think = f'The red block is at <loc30><loc20>. At <loc41><loc25> is the blue block. {pad} So I move the red block.'
    other = f'The blue block is at <loc41><loc25>. At <loc30><loc20> is the red block. {pad} So I move the blue block.'
    assert th.swap_entities(think, scene) == other
    assert th.swap_entities(think, sim.Scene('put_on', 'L0', 0, '', tuple(bodies[::2]), ((0, 1),))) == think


def test_gained_is_what_the_second_arm_alone_solved():
    "Guard: gained and lost exchanged would turn the gallery around."
    rows = apart(1, 2, 1, 1).assign(instruction='', action='', failure='', output='', reward=0., r_success=0., r_safety=0.)
    assert th.changed(rows, 'a', 'b').change.tolist() == ['lost', 'gained', 'gained']


def test_a_change_of_thinks_is_the_second_arm_minus_the_first():
    "Guard: on scenes where both make a claim."
    rows = apart(4, 4).assign(think_tokens=[10]*8 + [30]*8, grounding=[.5]*7 + [None] + [.75]*8)
    said = th.think_change(rows, 'a', 'b')
    assert 'length 10 tokens with a and 30 tokens with b (change +20.0 to +20.0)' in said
    assert 'true claims 50 % with a and 75 % with b (change +25.0 to +25.0)' in said


def test_the_noise_floor_counts_what_differs(monkeypatch):
    "Guard: scenes whose success differs, and texts that differ."
    runs = [table(a=[1, 0, 1, 1]).assign(output=list('wxyz')), table(a=[1, 1, 1, 1]).assign(output=list('wXYZ'))]
    monkeypatch.setattr(ev, 'act', lambda *_: runs.pop())
    assert ev.noise_floor(None, 'a', [None]*4, None) == dict(scenes=4, texts=3, discordant=1)


@pytest.mark.parametrize('arm, seeds', [('a', [0, 1]), ('b', [0, 1, 2])])
def test_an_arm_with_fewer_scenes_is_not_paired(arm, seeds):
    "Guard: scenes that only one arm saw would silently be left out, and the comparison be about others."
    rows = table(a=[1, 0, 1], b=[1, 1, 0])
    with pytest.raises(UserError, match='they share 2'): ev.compare(rows[~((rows.arm == arm) & (rows.seed == 2))], 'a', 'b')


def test_evaluation_and_selection_use_scenes_of_their_own_split(tmp_path, monkeypatch):
    "Guard: scenes that are trained on, chosen by and reported on must not be the same."
    from thinkact_nb import sft, tune
    from thinkact_nb.env import SPLIT_SIZE, SPLITS, split_of
    firsts = sorted(SPLITS.values())
    assert firsts == [i*SPLIT_SIZE for i in range(4)] and [split_of(f - 1) for f in firsts[1:]] == list(SPLITS)[:3]
    assert {split_of(s.seed) for s in cli.Eval(run='run').scenes('test', 3)} == {'test'}
    class Enough(Exception): "All that is wanted."
    def stop(self, split, n): raise Enough(split)
    assert options.first_scene('validation', 5) == SPLITS['validation'] + 5
    store = Store(tmp_path/'run', get_profile('tiny'), new=True)
    with monkeypatch.context() as patched, pytest.raises(Enough, match='test'):
        patched.setattr(cli.Eval, 'scenes', stop)
        cli.Eval(run=str(tmp_path/'run'), arms=('expert',))()
    looks = sft.Validation(store, ['put_on'], ['L0'], 2)
    assert [split_of(s.seed) for s in looks.scenes] == ['validation']*2
    assert {split_of(s.seed) for s in tune.Study(store, 'sft', scenes=3).scenes} == {'validation'}


def test_sft_keeps_what_succeeds_most_and_is_surest_of_its_actions(tmp_path, monkeypatch):
    "Guard: the kept adapter is chosen by validation success, and by the loss of action tokens where that is equal; more is better."
    from thinkact_nb import sft
    losses = dict(think=(30., 10), action=(4., 8))
    monkeypatch.setattr(sft, 'token_losses', lambda *_: losses)
    trainer, logged = object.__new__(sft.ValidatedSFT), []
    trainer.__dict__.update(
        model=torch.nn.Linear(1, 1), eval_dataset=[0], data_collator=lambda rows: {}, state=None, control=None,
        args=SimpleNamespace(eval_batch_size=1),
        processing_class=SimpleNamespace(tokenizer=SimpleNamespace(convert_tokens_to_ids=str)), log=logged.append,
        callback_handler=SimpleNamespace(on_evaluate=lambda *_: None),
        validation=SimpleNamespace(episodes=lambda *_: pd.DataFrame(dict(parsed=[True, True], success=[True, False]))))
    found = trainer.evaluate()
    wanted = dict(eval_loss=34/18, eval_think_loss=3., eval_action_loss=.5)
    assert found == wanted | dict(eval_parsed=1., eval_success=.5, eval_score=0.) and logged == [found]
    config = sft.sft_config(Store(tmp_path/'run', get_profile('tiny')))
    assert (config.metric_for_best_model, config.greater_is_better) == ('score', True)


def test_claim_table_counts():
    scenes = spread(6, ['put_on'])
    rows = table(a=[1]*6).assign(think=[th.think_in(expert(s)) for s in scenes])
    wrong = rows.assign(think=rows.think.str.replace('<loc..><loc..>', '<loc00><loc63>', regex=True), success=False)
    found = th.claim_table(pd.concat([rows, wrong])).set_index('kind').loc['place']
    assert found.true == .5 and (found.success_if_true, found.success_if_false) == (1, 0)


@pytest.mark.parametrize('think, denied', [
    ('I see two red blocks and one red block.', ['one and two red block']), ('I see two red blocks and one blue block.', []),
    ('The red block is at <loc30><loc20>. The red block is at <loc33><loc20>.', ['two places of the red block']),
    ('The red block is at <loc30><loc20>. The red block is at <loc32><loc18>.', []),
    ('I see two red blocks and one blue block. The red block is at <loc30><loc20>. The red block is at <loc40><loc20>.', []),
    ('The red pad is at <loc30><loc40>. The red block is at <loc40><loc20>, 10 in front, 20 left: 22 cm to the red block.', []),
    ('The red pad is at <loc30><loc40>. The red block is at <loc40><loc20>, 10 behind, 20 left: 22 cm to the red block.', ['the offset of the red block']),
    ('The red pad is at <loc30><loc40>. The red block is at <loc40><loc20>, 10 in front, 20 left: 25 cm to the red block.', ['the distance of the red block']),
    ('12 cm to the red block. 20 cm to the blue block. The nearest one: 20 cm to the blue block.', ['the nearest is not the blue block']),
    ('12 cm to the red block. 20 cm to the blue block. The farthest one: 20 cm to the blue block.', []),
    ('12 cm to the red block. The nearest one: 20 cm to the red block.', ['two distances of the red block']),
    ('The odd one is the red block. So the blue block goes onto the red pad.', ['what is chosen is not carried']),
    ('The odd one is the red block. So the red block goes onto the red pad.', []), ('', []), ('<loc1 12 cm é', [])])
def test_a_think_may_deny_itself(think, denied):
    "Guard: what cannot hold together is found by hand-made cases, each a bin or a centimetre from one that can."
    assert th.contradictions(think) == denied


def test_a_constant_answer_has_no_variety():
    "Guard: `hollow`. Twelve for every distance is sometimes true, and says nothing; an expert's values vary as an expert's do."
    rows = table(a=[1]*40).assign(think=[th.think_in(expert(s)) for s in spread(40, ['superlative'])], task='superlative')
    rows['seed'] = [s.seed for s in spread(40, ['superlative'])]
    rows['level'], rows['perturbed'] = 'L0', ''
    constant = rows.assign(arm='b', think=rows.think.str.replace(r'\d+ cm', '12 cm', regex=True))
    found = th.hollow(pd.concat([rows, constant])).set_index(['arm', 'kind'])
    assert (found.loc['a', ['true', 'variety']] == 1).all(axis=None)
    assert found.variety['b', 'distance'] < .1 and 0 < found.true['b', 'distance'] < .5 and found.variety['b', 'place'] == 1
    assert th.perplexity([1, 2, 3, 4]) == pytest.approx(4) and th.perplexity(['x']*9) == 1 and th.perplexity([]) == 0
    by_task = th.truth_by_task(pd.concat([rows, constant])).set_index('arm')
    assert by_task.contradictions['a'] == 0 < by_task.contradictions['b'] and by_task.true['a'] == 1 > by_task.true['b']


@pytest.mark.parametrize('name', ['episodes', 'interventions'])
def test_committed_tables_are_what_physics_says(name):
    rows = pd.read_parquet(TABLES/f'{name}.parquet')
    counts = rows.groupby(['arm', 'level']).size()
    assert counts.nunique() == 1 and counts.iloc[0] >= 300 and not rows.duplicated(['arm', *ev.PAIR]).any()
    some = rows.sample(30, random_state=0)
    with SimPool(0) as pool: found = pool.run([sim.make_scene(*key) for key in zip(some.task, some.level, some.seed)], [sim.parse_output(o).program for o in some.output])
    assert [o.success for o in found] == some.success.tolist() and [o.failure for o in found] == some.failure.tolist()


def test_gallery_shows_ten_cases_each_way_and_its_commands_replay_them(tmp_path, capsys):
    page, rows = (TABLES.parents[1]/'nbs'/'gallery.html').read_text(encoding='utf-8'), pd.read_parquet(TABLES/'episodes.parquet')
    rl = ev.rl_of(rows)
    cases = th.changed(rows[rows.level == 'L0'], 'sft', rl)
    expected = [case for change in ('gained', 'lost') for case in cases[cases.change == change].head(10).itertuples()]
    commands = re.findall(rf'thinkact (act --table thinkact_nb/tables/episodes.parquet --arm {rl} --task (\w+) --level L0 --seed (\d+))', page)
    assert [(task, int(seed)) for _, task, seed in commands] == [(c.task, c.seed) for c in expected] and page.count('<video') == 2*len(expected)
    for command, case in ((commands[0][0], expected[0]), (commands[-1][0], expected[-1])):
        cli.main([*command.replace('thinkact_nb/tables', str(TABLES)).split(), '--run', str(tmp_path/'run')])
        end = 'success' if case.change == 'gained' else 'failure: ' + case.failure_b.replace('parse', 'no valid program')
        assert f'outcome      {end}' in capsys.readouterr().out


def test_the_committed_report_recomputes(tmp_path):
    "Every number and figure of the report of the policies of 07, and what 09 printed of it, again from the committed tables; a changed table fails."
    found = report.findings(report.kept_run(tmp_path/'run'))
    nbs = TABLES.parents[1]/'nbs'
    page, cells = (nbs/'report_policies.html').read_text(encoding='utf-8'), json.loads((nbs/'09_report.ipynb').read_text(encoding='utf-8'))['cells']
    printed = ''.join(''.join(o.get('text', [])) for c in cells for o in c.get('outputs', []))
    table = pd.read_parquet(TABLES/'episodes.parquet')
    rl = ev.rl_of(table)
    assert set(found['training']) == {'sft', rl}
    charts = [pictures.curve(log, ['loss'], 'loss per token', 'optimizer step') for log in found['training'].values()]
    tables = [report.as_table(found['arms'], report.RATES), report.as_table(found['interventions'], report.RATES), report.as_table(found['failures'], {k: k.replace('_', ' ') for k in found['failures'][0]})]
    for part in [escape(s) for s in (found['headline'], found['protocol'], *found['thinks'], *(c['sentence'] for c in found['comparisons']), *(alt for _, alt in charts))] + tables: assert part in page, part[:200]
    for c in found['comparisons']: assert c['b'] != rl or c['sentence'] in printed
    assert not found['study'] and 'of former weights' not in page, 'the study is on 08; the report is of one set of weights'
    changed = table.assign(success=table.success ^ ((table.arm == rl) & (table.index % 50 == 0)))
    assert escape(str(ev.compare(changed[changed.level == 'L0'], 'sft', rl))) not in page


def test_a_function_is_a_policy(tmp_path):
    "Guard: a function sees the image and the instruction that a model sees, and its rows are never taken from an earlier run."
    store = Store(tmp_path/'run', get_profile('tiny'))
    scenes = spread(2, ('put_on',), seed=30_000_000)
    seen = []
    answers = {s.instruction: expert(s) for s in scenes}
    def planner(image, instruction):
        seen.append(image.shape)
        return answers[instruction]
    with SimPool(0) as pool:
        found = ev.evaluate(store, [planner, 'random'], scenes, pool)
        assert found[found.arm == 'planner'].success.all() and seen == [(128, 128, 3)]*2
        answers = dict.fromkeys(answers, 'nothing that can be read')
        again = ev.evaluate(store, [planner], scenes, pool, resume=True)
        assert again.failure.tolist() == ['parse', 'parse'] and len(pd.read_parquet(tmp_path/'run'/'eval'/'episodes.parquet')) == 4
    def expert_(image, instruction): return ''
    expert_.__name__ = 'expert'
    for wrong in ([lambda image, instruction: ''], [expert_]):
        with pytest.raises(UserError, match='a name of its own'): ev.check_arms(wrong)


def test_claims_are_shown_by_their_truth():
    "Guard: of two claims in one place the false one must show."
    scene = sim.make_scene('put_on', 'L0', 30_000_000)
    block = next(b for b in scene.bodies if b.kind == 'block')
    place, away = sim.loc_text(*block.place), sim.loc_text(block.x + .2 if block.x < .4 else block.x - .2, block.y)
    think = f'A {block.name} at {place}, 99 cm away. The {block.name} at {away}. Nothing.'
    pieces = pictures.told(think, scene)
    assert ''.join(text for text, _ in pieces) == think
    assert [truth for text, truth in pieces if f'{block.name} at {place}' in text] == [False]
    assert [truth for text, truth in pieces if away in text] == [False]
    assert [truth for text, truth in pictures.told(f'A {block.name} at {place}.', scene) if truth is not None] == [True]
    assert pictures.told('', scene) == []


def test_rates_by_task_have_a_row_for_each_task():
    "Guard: 216 rows of rates in the report's table were nine tasks."
    rows = [dict(task=t, level=l, arm=a, n=20, rate=.5, low=.3, high=.7) for t in 'xyz' for l in ('L0', 'L1') for a in ('sft', 'ppo')]
    found = report.by_task(rows)
    assert [level for level, *_ in found] == ['L0', 'L1']
    for _, lines, columns in found:
        assert [line['task'] for line in lines] == ['x', 'y', 'z'] and list(columns.values()) == ['task', 'scenes', 'sft', 'ppo']
        assert {line['arm sft'] for line in lines} == {'50 % (30 to 70)'}


def test_a_false_distance_rings_no_place_red():
    "Guard: a block that was seen rightly had a red ring, because the distance said beside it was wrong."
    from thinkact_nb.language import claims
    from thinkact_nb.pictures import FALSE, TRUE, ringed
    from thinkact_nb.world import World
    scene = sim.make_scene('superlative', 'L0', 3)
    think = th.think_in(expert(scene))
    wrong = re.sub(r'\d+ (behind|in front)', '1 \\1', think)
    assert any(not c.true for c in claims(wrong, scene)) and all(c.true for c in claims(wrong, scene) if c.kind == 'place')
    world = World().reset(scene)
    seen = lambda think, colour: (ringed(world.render(320), think, world) == np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)])).all(-1).any()
    assert seen(wrong, TRUE) and not seen(wrong, FALSE)
    moved = re.sub(r'<loc\d\d><loc\d\d>', '<loc02><loc02>', think)
    assert seen(moved, FALSE) and not seen(moved, TRUE)
