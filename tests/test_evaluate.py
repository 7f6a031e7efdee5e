"Statistics against theory, what may not be paired, and the committed tables against physics."
import html
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from thinkact_nb import evaluate as ev
from thinkact_nb import report, sim
from thinkact_nb.data import expert, spread
from thinkact_nb.env import Store, UserError, get_profile

TABLES = Path(__file__).parent.parent/'thinkact_nb'/'tables'


def table(**arms):
    "Episodes in the scenes of put_on, one 0 or 1 per scene and arm."
    row = dict(task='put_on', level='L0', perturbed='', sample=0, decoding='greedy', version='1', think='', think_tokens=0, grounding=None)
    return pd.DataFrame([dict(row, arm=arm, seed=i, success=bool(s)) for arm, found in arms.items() for i, s in enumerate(found)])


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
    rng, n, discordant = np.random.default_rng(0), 200, .3
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
    assert ev.interaction(same, 'a', 'b').p[0] > .05 and ev.interaction(more, 'a', 'b').p_holm[0] < .001
    assert abs(ev.interaction(more, 'a', 'b').difference[0] - luck.mean()) < 1e-9
    with pytest.raises(UserError, match='no interventions'): ev.interaction(same, 'a', 'c')


def test_claim_table_counts():
    scenes = spread(6, ['put_on'])
    rows = table(a=[1]*6).assign(think=[ev.think_in(expert(s)) for s in scenes])
    wrong = rows.assign(think=rows.think.str.replace('<loc..><loc..>', '<loc00><loc63>', regex=True), success=False)
    found = ev.claim_table(pd.concat([rows, wrong])).set_index('kind').loc['place']
    assert found.true == .5 and (found.success_if_true, found.success_if_false) == (1, 0)


@pytest.mark.parametrize('name', ['episodes', 'interventions'])
def test_committed_tables_are_what_physics_says(name):
    rows = pd.read_parquet(TABLES/f'{name}.parquet')
    counts = rows.groupby(['arm', 'level']).size()
    assert counts.nunique() == 1 and counts.iloc[0] >= 300 and not rows.duplicated(['arm', *ev.SCENE]).any()
    some = rows.sample(30, random_state=0)
    with sim.SimPool(0) as pool: found = pool.run([sim.make_scene(*key) for key in zip(some.task, some.level, some.seed)], [sim.parse_output(o).program for o in some.output])
    assert [o.success for o in found] == some.success.tolist() and [o.failure for o in found] == some.failure.tolist()


def test_gallery_shows_ten_cases_each_way_and_its_commands_replay_them(tmp_path, capsys):
    page, rows = (TABLES.parents[1]/'nbs'/'gallery.html').read_text(), pd.read_parquet(TABLES/'episodes.parquet')
    cases = ev.changed(rows[rows.level == 'L0'], 'sft', 'ppo')
    expected = [case for change in ('gained', 'lost') for case in cases[cases.change == change].head(10).itertuples()]
    commands = re.findall(r'thinkact (act --table thinkact_nb/tables/episodes.parquet --arm ppo --task (\w+) --level L0 --seed (\d+))', page)
    assert [(task, int(seed)) for _, task, seed in commands] == [(c.task, c.seed) for c in expected] and page.count('<video') == 2*len(expected)
    for command, case in ((commands[0][0], expected[0]), (commands[-1][0], expected[-1])):
        report.main([*command.replace('thinkact_nb/tables', str(TABLES)).split(), '--run', str(tmp_path/'run')])
        end = 'success' if case.change == 'gained' else 'failure: ' + case.failure_b.replace('parse', 'no valid program')
        assert f'outcome      {end}' in capsys.readouterr().out


def test_numbers_of_the_front_page_are_those_of_the_tables():
    cells = json.loads((TABLES.parents[1]/'nbs'/'index.ipynb').read_text())['cells']
    text, long, forced = ''.join(''.join(c['source']) for c in cells), pd.read_parquet(TABLES/'episodes.parquet'), pd.read_parquet(TABLES/'interventions.parquet')
    long, forced = long[long.level == 'L0'], forced[forced.level == 'L0']
    seeds = ['ppo', 'ppo seed 1', 'ppo seed 2']
    percent = {arm: f'{rate*100:.0f}' for found in (ev.rates(long), ev.rates(forced)) for arm, rate in zip(found.arm, found.rate)}
    gains = [ev.compare(long, 'sft', s) for s in seeds]
    places = {arm: ev.claim_table(long[long.arm == arm]).set_index('kind').true['place'] for arm in ('sft', 'ppo')}
    three = lambda values: '{}, {} and {}'.format(*values)
    for said in (f'{long[long.arm == "sft"].shape[0]} scenes of level L0', f"from {percent['sft']} % to {three(percent[s] for s in seeds)} %", f"({three(f'{c.difference*100:+.0f}' for c in gains)} points",
                 f"true in {places['ppo']*100:.0f} % of cases instead of {places['sft']*100:.0f} %", f"it solves {percent['ppo>sft']} %", f"SFT policy's thinks, {percent['sft>ppo']} %",
                 f"nearly as well ({percent['sft-nothink']} %)"): assert said in text, said
    assert max(c.p for c in gains) < float(re.search(r'McNemar p < ([\d.e-]+)', text)[1])


def test_the_committed_report_recomputes(tmp_path):
    "Every number and figure of the long run's report, and what 09 printed of it, again from the committed tables; a changed table fails."
    found = report.findings(report.long_run(tmp_path/'run'))
    nbs = TABLES.parents[1]/'nbs'
    page, cells = (nbs/'long_run.html').read_text(), json.loads((nbs/'09_report.ipynb').read_text())['cells']
    printed = ''.join(''.join(o.get('text', [])) for c in cells for o in c.get('outputs', []))
    log = found['training']['ppo']
    charts = [report.curve(found['training']['sft'], ['loss'], 'loss per token', 'optimizer step'), *(report.curve(log, keys, label, 'update') for keys, label in report.RL_CURVES)]
    tables = [report.as_table(found['arms'], report.RATES), report.as_table(found['interventions'], report.RATES), report.as_table(found['failures'], {k: k.replace('_', ' ') for k in found['failures'][0]})]
    for part in [html.escape(s) for s in (found['headline'], found['protocol'], *found['thinks'], *(c['sentence'] for c in found['comparisons']), *(alt for _, alt in charts))] + tables: assert part in page, part[:200]
    for c in found['comparisons']: assert c['b'] != 'ppo' or c['sentence'] in printed
    assert len(found['study']) >= 40 and all(html.escape(t['hypothesis']) in page for t in found['study'])
    table = pd.read_parquet(TABLES/'episodes.parquet')
    changed = table.assign(success=table.success ^ ((table.arm == 'ppo') & (table.index % 50 == 0)))
    assert html.escape(str(ev.compare(changed[changed.level == 'L0'], 'sft', 'ppo'))) not in page
