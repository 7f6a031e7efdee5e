"""What the first page says of the runs whose tables come with the package, and the page of results in full: the block between the marks in nbs/index.ipynb,
README.ko.md and nbs/measure/results.ipynb, and the chart nbs/rates.svg. Every number of it is computed here.

    .venv/bin/python tools/front.py          # writes them; then `make export`, since README.md is written from the index
    .venv/bin/python tools/front.py --check  # says which of them are not what the tables give

A chart is compared by the numbers in its description: another version of matplotlib draws the same chart with other bytes."""
import json
import re
import sys
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape
from statsmodels.stats.proportion import proportion_confint

from thinkact_nb.evaluate import compare, over_seeds, rates
from thinkact_nb.pictures import chart
from thinkact_nb.store import SHIPPED, outdated, outdated_note, rl_arms, table_file
from thinkact_nb.think import claim_table

HERE = Path(__file__).parent
ROOT = HERE.parent
CHART = Path('nbs/rates.svg')
BLOCK = re.compile(r'(?s)(<!-- front -->\n).*?(?=<!-- /front -->)')
TABLES = ('standin/run', 'tables/arms', 'tables/arms_more', 'tables/rivals', 'tables/rft', 'tables/rft_90', 'tables/rft_900', 'tables/loop.json', 'tables/loop_rl', 'tables/episodes.parquet', 'tables/policies', 'nbs/film.mp4', 'nbs/repair.mp4')
PAGES = {  # template, and where its links begin
    'nbs/index.ipynb': ('front.md.jinja', ''),
    'README.ko.md': ('front.ko.md.jinja', 'nbs/'),
    'nbs/measure/results.ipynb': ('results.md.jinja', '../')}


def named(arm, first):
    "What a policy is called: its kind and its seed of training, the first one's where the arm does not say."
    kind, _, seed = arm.partition(' seed ')
    rounds = f', {kind[-1]} rounds' if kind[-1].isdigit() else ''
    kind = kind.rstrip('0123456789')
    return f'{kind.upper() if kind.isalpha() else kind}{rounds}, seed {seed or first}'


def of_run(table, config, episodes):
    "A run as the front page tells it: what it was trained with, and each level with SFT, every RL policy and their comparisons."
    rl = [arm for arm in table.arm.unique() if arm.split()[0] in rl_arms()]
    found = rates(table, ['level']).set_index(['level', 'arm']).to_dict('index')
    levels = [dict(name=level, n=len(rows[rows.arm == 'sft']), sft=found[level, 'sft'],
                   rl=[dict(found[level, arm], arm=arm, name=named(arm, config['seed']), compared=compare(rows, 'sft', arm)) for arm in rl]) for level, rows in table.groupby('level')]
    profile = config['profile']
    return dict(demonstrations=profile['demonstrations'], episodes=episodes, rl=rl, levels=levels)


def places_true(table, arm): return claim_table(table[table.arm == arm]).set_index('kind').true['place']


def runs(shipped=SHIPPED):
    "The demo's run, the policies that were judged on every level, the arms of what_pays and the loop of turns."
    read = lambda file: json.loads(file.read_text(encoding='utf-8'))
    log = read(shipped/'rl'/'ppo'/'log.json')
    config = read(shipped/'config.json')
    demo = of_run(pd.read_parquet(shipped/'eval'/'episodes.parquet'), config, len(log)*config['profile']['rl_batch'])
    table, seeds = pd.read_parquet(table_file('episodes.parquet')), read(table_file('policies')/'seeds.json')
    judged = of_run(table, read(table_file('policies')/'config.json'), seeds[0]['texts'])
    first = table[table.level == judged['levels'][0]['name']]
    nothink = rates(first).set_index('arm').rate['sft-nothink']
    judged |= dict(places=[places_true(first, arm) for arm in ('sft', judged['rl'][0])], nothink=nothink)
    arms = of_arms()
    return dict(demo=demo, judged=judged, arms=[*arms, *of_own()], loop_run=of_loop(), rl=of_starts(demo, arms), rl_turns=of_turns(),
                outdated=list(outdated(*TABLES)), note=outdated_note(*TABLES))


def kept_runs(*folders):
    "What each run of some folders of tables left."
    return [json.loads(file.read_text(encoding='utf-8')) for folder in folders for file in sorted(table_file(folder).glob('*.json'))]


def seeds_together(differences):
    "What trainings gained that differ in their seed."
    mean, low, high = over_seeds(differences)
    return dict(difference=mean, low=low, high=high, seeds=len(differences))


def of_seeds(compared):
    """What runs that differ in their seed add: over seeds, or of one over its scenes; `over_scenes` is where the intervals of all reach, each with scenes as
    units: how seeds agree says nothing about other scenes."""
    one = {name: compared[0][name] for name in ('difference', 'low', 'high')} | dict(seeds=1)
    found = seeds_together([c['difference'] for c in compared]) if len(compared) > 1 else one
    return found | dict(over_scenes=(min(c['low'] for c in compared), max(c['high'] for c in compared)))


def of_arms():
    "The runs of reinforce/what_pays that were judged by test scenes, those that differ in nothing but their seed together: the first one's numbers, and all of theirs."
    groups = {}
    for run in kept_runs('arms', 'arms_more', 'rivals'):
        if not run['look']: groups.setdefault((run['start'], run['arm'], run['updates']), []).append(run | run['levels']['L0']['compared'])
    return [runs[0] | of_seeds(runs) | dict(episodes=256*updates, solved=[run['b_successes'] for run in runs], ps=[run['p'] for run in runs])
            for (_, _, updates), runs in sorted(groups.items())]


def of_own():
    "What learning its own successes adds: of each start the last round that every seed of it has, over its seeds."
    starts = {}
    for run in kept_runs('rft_90', 'rft', 'rft_900'): starts.setdefault(run['start'], []).append(run)
    return [of_round(runs, min(len(run['told']) for run in runs)) for _, runs in sorted(starts.items())]


def of_round(runs, rounds):
    "What so many rounds add, over seeds; of one seed, over its scenes."
    told = [run['told'][rounds - 1]['compared'] for run in runs]
    first = told[0]
    return of_seeds(told) | dict(start=runs[0]['start'], how='own', arm='its own successes', episodes=sum(r['texts'] for r in runs[0]['told'][:rounds]), a_successes=first['a_successes'],
                        n=first['n'], solved=[c['b_successes'] for c in told], ps=[c['p'] for c in told])


def of_starts(demo, arms):
    "What RL adds to SFT on so many demonstrations: the runs of what_pays that were trained with several seeds; the demo's, if there are none."
    compared = demo['levels'][0]['rl'][0]['compared']
    first = dict(start=demo['demonstrations'], how='ppo', difference=compared.difference, low=compared.low, high=compared.high, seeds=1)
    return [*(dict(run, how='ppo') for run in arms if run['arm'] == 'ppo' and run['seeds'] > 1), *(run for run in of_own() if run['seeds'] > 1)] or [first]


def of_turns():
    "What RL on turns adds to SFT on turns, over its seeds."
    found = kept_runs('loop_rl')
    return seeds_together([run['compared']['difference'] for run in found])


def of_loop():
    "What a second look is worth, from the run of turns: under all mishaps, and where nothing goes wrong (`calm`)."
    found = json.loads(table_file('loop.json').read_text(encoding='utf-8'))
    return found['all_mishaps'] | dict(control=found.get('control'), thinks=found['thinks'], calm=next(pair for pair in found['mishaps']['none']['pairs'] if pair['a'] == 'open'))


def of_scenes(solved, n):
    "The 95 % Wilson interval of a share, as the front page writes it."
    low, high = proportion_confint(solved, n, method='wilson')
    return f'{100*low:.0f}–{100*high:.0f} %'


def block(found, template, at):
    "The block of a page, from its template."
    env = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    env.globals |= dict(of_scenes=of_scenes)
    env.filters |= dict(per_cent=lambda share: f'{share*100:.0f}', points=lambda share: f'{round(share*100):+d}'.replace('-', '−').replace('+0', '0'),
                        short=lambda p: '1' if p > .995 else f'{p:.2f}' if p >= .01 else f'{p:.0e}'.replace('e-0', 'e-'))
    return env.get_template(template).render(found, at=at, chart=at + CHART.name)


def bars(found):
    "What the chart draws: (run and level, [(name of the policy, its rate with interval)])."
    for run, title in (('demo', 'make demo'), ('judged', 'benchmark')):
        for level in found[run]['levels']:
            yield f'{title}\n{level["name"]}', [('SFT', level['sft']), *((r['name'], r) for r in level['rl'])]


def described(found):
    "The chart in words, with every number that it draws."
    said = (f'{where.replace(chr(10), " ")}: ' + ', '.join(f'{name} {r["rate"]:.1%} ({r["low"]:.1%} to {r["high"]:.1%})' for name, r in policies) for where, policies in bars(found))
    return 'Share of test scenes solved, with 95 % Wilson intervals. ' + '; '.join(said) + '.'


def drawn(found):
    "The chart as SVG: a group for each run and level, a colour and a mark for each policy."
    groups = list(bars(found))
    names = list(dict.fromkeys(name for _, policies in groups for name, _ in policies))
    marks = dict(zip(names, 'so^DvPX'))

    def draw(ax):
        for x, (_, policies) in enumerate(groups):
            for i, (name, r) in enumerate(policies):
                reach = [[100*(r['rate'] - r['low'])], [100*(r['high'] - r['rate'])]]
                at = x + .17*(i - (len(policies) - 1)/2)
                first = next(y for y, (_, some) in enumerate(groups) if name in dict(some)) == x
                ax.errorbar(at, 100*r['rate'], yerr=reach, fmt=marks[name], capsize=4, color=f'C{names.index(name)}', label=name if first else None)
        ax.axvline(len(found['demo']['levels']) - .5, color='#7d8590', linewidth=.8, linestyle=':')
        ax.set_xticks(range(len(groups)), [where for where, _ in groups])
        ax.set_xlim(-.5, len(groups) - .5)
        ax.set_ylim(0, 100)
        ax.set_yticks(range(0, 101, 20))
        ax.set_ylabel('test scenes solved (%)')
        ax.set_xlabel('run and level of the scenes')
        ax.set_title('What RL adds to SFT, stand-in, greedy decoding, 95 % intervals')
        ax.grid(axis='y', alpha=.3)
        ax.figure.legend(ncols=3, loc='outside lower center', fontsize=9)
    svg = chart(draw, (7.2, 4.2)).decode()
    return svg.replace('<style>', f'<title>Success in test scenes</title>\n<desc>{escape(described(found))}</desc>\n<style>', 1)


def with_block(path, new):
    "A page's text with another block between its marks."
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.ipynb':
        nb = json.loads(text)
        [cell] = [c for c in nb['cells'] if '<!-- front -->' in ''.join(c['source'])]
        cell['source'] = BLOCK.sub(lambda m: m[1] + new, ''.join(cell['source'])).splitlines(True)
        return json.dumps(nb, indent=1, ensure_ascii=False) + '\n'
    return BLOCK.sub(lambda m: m[1] + new, text)


def stale(found, root=ROOT):
    "The text of each page that is not what the tables give, and of the chart."
    made = {root/page: with_block(root/page, block(found, *how)) for page, how in PAGES.items()}
    out = {path: text for path, text in made.items() if path.read_text(encoding='utf-8') != text}
    picture = root/CHART
    if not picture.exists() or str(escape(described(found))) not in picture.read_text(encoding='utf-8'): out[picture] = None
    return out


def main(check):
    found = runs()
    old = stale(found)
    if check: return [f'{path.relative_to(ROOT)}: not what the tables give; run tools/front.py, then `make export`' for path in old]
    for path, text in (old | {ROOT/CHART: drawn(found)}).items(): path.write_text(text, encoding='utf-8')
    return []


if __name__ == '__main__': sys.exit('\n'.join(main('--check' in sys.argv)) or None)
