"What pages say first, and what stands beside the notebooks, against tables and settings."
import ast
import json
import math
import re
import shutil
import sys
from configparser import ConfigParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from thinkact_nb.store import SHIPPED

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT/'tools'))
import house

RESULTS = [path for path in house.lessons() if '**Result.**' in path.read_text(encoding='utf-8')]


def code_until_result(path):
    "The code that runs before a page's result, and the cell of the result with its place."
    begun = []
    for place, cell in enumerate(json.loads(path.read_text(encoding='utf-8'))['cells']):
        source = ''.join(cell['source'])
        if cell['cell_type'] != 'code' or '#| eval: false' in source or '#| default_exp' in source: continue
        if '**Result.**' in source: return begun, cell, place
        begun.append(source)


def test_the_numbered_pages_from_03_to_09_open_with_a_result():
    "Guard: results first; what comes later is how."
    spine = {path.stem[:2] for path in RESULTS if house.in_course(path.stem)}
    assert spine == {f'0{n}' for n in range(3, 10)}
    assert all(code_until_result(path)[2] <= 9 for path in RESULTS)


@pytest.mark.parametrize('path', RESULTS, ids=house.name_of)
def test_a_result_is_what_the_tables_give(path):
    "Guard: a table was made again and the page's first sentence was not."
    begun, cell, _ = code_until_result(path)
    names = {}
    for source in begun: exec(source, names)
    *steps, last = ast.parse(''.join(cell['source'])).body
    exec(compile(ast.Module(steps, []), path.stem, 'exec'), names)
    said = eval(compile(ast.Expression(last.value), path.stem, 'eval'), names).data
    [kept] = cell['outputs']
    assert said == ''.join(kept['data']['text/markdown']) and re.search(r'\d', said)


NO_PICTURE = {'ground/files': 'a torn file and a whole one look alike; what is read says which is which',
              'keep/hub': 'a push and its fate are a line each',
              'keep/store': 'a run is a folder, and the list of its files says all',
              'keep/checkpoints': 'which checkpoints stay is a list of names',
              'model/release': 'a merged policy is a folder, and the list of its files says all',
              'commands/options': 'what it makes is one line about a mistake'}


def shows(cell):
    "Whether a cell shows a picture: of Markdown, as an output, or in an output's HTML."
    if cell['cell_type'] == 'markdown': return bool(re.search(r'(?m)^!\[.+\]\(', ''.join(cell['source'])))
    found = [(kind, ''.join(body)) for out in cell.get('outputs', []) for kind, body in out.get('data', {}).items()]
    return any(kind.startswith('image/') or kind == 'text/html' and '<img' in body for kind, body in found)


def test_every_page_shows_a_picture_by_its_tenth_cell():
    "Guard: pictures first; who opens a page sees at a glance what it is about."
    cells = {house.name_of(path): house.cells(path) for path in house.lessons()}
    silent = ('#@markdown', 'outdated_note(')  # the form of 02 to 09, and a note that is mostly empty
    own = {name: [cell for cell in some if not any(mark in ''.join(cell['source']) for mark in silent)] for name, some in cells.items()}
    late = {name for name, some in own.items() if not any(map(shows, some[:10]))}
    assert len(cells) > 30 and late == set(NO_PICTURE)


def test_the_foot_of_a_course_page_leads_on_and_deeper_and_every_other_page_hangs_from_one():
    course = [name for name in house.names() if "/" not in name and name not in house.FRONT]
    hang = []
    for name, following in zip(course, [*course[1:], None]):
        foot = "".join([cell for cell in house.cells(house.path_of(name)) if cell["cell_type"] == "markdown"][-1]["source"])
        assert following is None or "Next: " in foot and f"({following}.ipynb)" in foot, name
        deeper = re.findall(r"^- \[.+\]\((\S+)\.ipynb\), if ", foot, re.M)
        assert deeper, name
        hang += deeper
    assert sorted(hang) == sorted(name for name in house.names() if "/" in name)


def test_the_front_page_says_what_the_tables_give():
    "Guard: table, sentences and chart of README, in both languages, are computed from the tables that come with the package."
    import front
    assert front.main(check=True) == []


@pytest.mark.parametrize('page', ['README.md', 'README.ko.md'])
def test_a_reader_of_the_first_page_soon_meets_a_picture_an_answer_and_a_command(page):
    "Guard: 989 words and 218 numbers stood before the first command, 948 words before a robot."
    before, _, after = (ROOT/page).read_text(encoding='utf-8').partition('```')
    assert '.webp' in before and before.count('](') >= 6 and after.startswith((' sh\n', 'sh\n'))
    seen = re.sub(r'!?\[([^\]]*)\]\([^)]*\)|<[^>]+>', lambda m: '' if m[0].startswith(('!', '<')) else m[1], before)
    words, numbers = re.findall(r'[^\W\d]{2,}', seen), re.findall(r'\d[\d,.]*', seen)
    assert len(words) <= 200 and len(numbers) <= 25, (len(words), len(numbers))
    undefined = [word for word in ('arm', 'greedy', 'claim', 'McNemar', 'λ') if re.search(rf'\b{word}\b', seen.partition('>')[2].partition('\n')[2])]
    assert not undefined


def test_the_first_command_of_the_first_page_shows_a_repair():
    "Guard: the page promises that the policy looks again and mends it, and the scene that it names ends in failure."
    from thinkact_nb.env import get_profile
    from thinkact_nb.family import load_processor
    from thinkact_nb.model import load_model
    from thinkact_nb.pool import SimPool
    from thinkact_nb.sim import make_scene
    from thinkact_nb.store import SHIPPED_TURNS
    from thinkact_nb.turns import loop_episodes
    command = r'thinkact act --task (\w+) --seed (\d+) --turns (\d+) --disturb (\w+)'
    [(task, seed, turns, mishap)] = set(re.findall(command, ''.join((ROOT/page).read_text(encoding='utf-8') for page in ('README.md', 'README.ko.md'))))
    tiny = get_profile('tiny')
    policy = load_model(tiny, str(SHIPPED_TURNS)), load_processor(tiny)
    [played] = loop_episodes(policy, [make_scene(task, 'L0', int(seed))], SimPool(0), tiny, int(turns), mishap)
    assert played.outcome.success and played.ended == 'done' and 'out of the grasp' in played.turns[1][1]
    [(think, action)] = re.findall('<think>(.*)</think><action>(.*)</action>', played.turns[1][1])
    for page in ('README.md', 'README.ko.md'):
        [shown] = re.findall(r'(?s)turn 2 +… (.*?) *\n +think +(.*?) …\n +action +(.*?)\n', (ROOT/page).read_text(encoding='utf-8'))
        assert shown[0] in played.turns[1][0].asked and think.startswith(shown[1]) and action == shown[2], page


def test_another_run_gives_another_front_page(tmp_path):
    "Guard: a number of the front page that is typed, and not computed, survives a new demo run."
    import front
    demo, pages = tmp_path/'demo', tmp_path/'pages'
    shutil.copytree(SHIPPED, demo)
    table = pd.read_parquet(demo/'eval'/'episodes.parquet')
    seeds = table[table.arm == 'ppo'].assign(arm='ppo seed 1')
    lost = table.arm.eq('ppo') & table.task.isin(['put_on', 'stack', 'match'])
    pd.concat([table.assign(success=table.success & ~lost), seeds]).to_parquet(demo/'eval'/'episodes.parquet')
    config = json.loads((demo/'config.json').read_text(encoding='utf-8'))
    config['profile'] |= dict(demonstrations=1234, rl_batch=100)
    (demo/'config.json').write_text(json.dumps(config), encoding='utf-8')
    for page in (*front.PAGES, str(front.CHART)):
        (pages/page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT/page, pages/page)
    found = front.runs(demo)
    assert set(front.stale(found, pages)) == {pages/page for page in ('nbs/measure/results.ipynb', str(front.CHART))}
    turned = found | dict(loop_run=found['loop_run'] | dict(b_successes=1), rl_turns=dict(found['rl_turns'], low=.5))
    assert set(front.stale(turned, pages)) == {pages/page for page in (*front.PAGES, str(front.CHART))}
    said = front.block(found, 'results.md.jinja', '')
    solved = table.pivot(index=['task', 'seed'], columns='arm', values='success')
    kept = solved.ppo & ~solved.index.get_level_values('task').isin(['put_on', 'stack', 'match'])
    assert '1,234 demonstrations and 800 episodes' in said and f'PPO, seed 0, a loss, {(kept & ~solved.sft).sum()} scenes that SFT does not solve and {(solved.sft & ~kept).sum()} lost' in said
    assert f'| PPO, seed 1 | {100*solved.ppo.mean():.0f} %' in said
    assert front.drawn(found) == front.drawn(found) and front.described(found) != front.described(front.runs())


def test_the_first_commands_were_run_as_they_are_now():
    "Guard: a newcomer meets a command that fails, a README whose Python was never run, or noise that reads as failure."
    import first_commands
    receipt = first_commands.RECEIPT.read_text(encoding='utf-8')
    tried = re.findall(r'(?m)^\| \d+ \| (.*?) \| (\d+) \|', receipt)
    assert tried == [(name, '0') for name, *_ in first_commands.wanted()]
    assert all(f'```python\n{shown}\n```' in receipt for _, shown, _ in first_commands.wanted() if not shown.startswith('thinkact'))
    assert not re.search('Traceback|Warning|Failed|/tmp/|/home/', receipt)


def test_what_was_printed_is_kept_without_what_differs_between_machines():
    from first_commands import plain, python_of
    assert plain('\x1b[1m3 rows\x1b[0m in /tmp/x/runs\nrows:  11%|# | 1/9 [00:01<00:10]\ntook 2.5 s on Linux-6.1-x86_64', Path('/tmp/x')) == '3 rows in runs\ntook … s on Linux'
    assert python_of('``` python\n0\n```\n## As a library\n``` python\na = 1\n```\nand `gymnasium.make("x", level="L1")`.\n## More\n``` python\n2\n```')[0] == 'a = 1\n'


def test_the_citation_says_what_settings_ini_says():
    "Guard: the version is raised in one place and cited from another."
    settings = ConfigParser()
    settings.read(ROOT/'settings.ini', encoding='utf-8')
    settings, cited = settings['DEFAULT'], yaml.safe_load((ROOT/'CITATION.cff').read_text(encoding='utf-8'))
    assert (cited['title'], str(cited['version'])) == (settings['title'], settings['version'])
    assert [author['name'] for author in cited['authors']] == [settings['author']] and cited['keywords'] == settings['keywords'].split()
    assert (cited['repository-code'], cited['url']) == (settings['git_url'], settings['doc_host'] + settings['doc_baseurl'])
    assert re.search(rf'(?m)^## {re.escape(settings["version"])}\b', (ROOT/'CHANGELOG.md').read_text(encoding='utf-8'))


def test_a_report_of_a_t4_has_what_is_needed_to_use_it():
    "Guard: a form that GitHub cannot read is not shown, and it says so to nobody."
    form = yaml.safe_load((ROOT/'.github/ISSUE_TEMPLATE/t4.yml').read_text(encoding='utf-8'))
    fields = {part['id']: part for part in form['body'] if part['type'] != 'markdown'}
    assert form['name'] and form['description'] and list(fields) == ['notebook', 'runtime', 'gpu', 'receipt', 'stopped', 'minutes']
    assert all(part['type'] in ('input', 'textarea') and part['attributes']['label'] for part in fields.values())
    assert not any(fields[name].get('validations', {}).get('required') for name in ('receipt', 'stopped')), 'a run may end before either'


PROSE = ('README.md', 'README.ko.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md', 'Makefile', 'space/README.md', 'space/app.py', '.github/workflows/*.yaml', 'nbs/**/*.ipynb',
         'thinkact_nb/templates/*.md', 'tools/*.jinja')


def stand_in_millions():
    from safetensors import safe_open
    with safe_open(ROOT/'thinkact_nb/standin/model.safetensors', 'np') as weights: return sum(math.prod(weights.get_slice(n).get_shape()) for n in weights.keys())/1e6


def one_place():
    "(what a sentence says, in which the group is a count, a version or a size; what it must be; from where)"
    held = ConfigParser()
    held.read(ROOT/'settings.ini', encoding='utf-8')
    needs = ' '.join(held['DEFAULT'][key] for key in ('requirements', 'train_requirements', 'dev_requirements'))
    version = lambda name: re.search(rf'(?m)\b{re.escape(name)}==([\d.]+)', needs)[1]
    numbers = (ROOT/'tools/numbers.txt').read_text(encoding='utf-8')
    disk = re.search(r'(?m)^index.ipynb \| ([\d.]+) \| GB of `.venv`', numbers)[1]
    return [(r'(?<!\d)(\d+\.\d+)[- ]million[- ]param|(\d+\.\d+) million parameters', f'{stand_in_millions():.1f}', 'the weights of the stand-in'),
            (r'Python (3\.\d+) or newer|From Python (3\.\d+) to', held['DEFAULT']['min_python'], 'settings.ini'),
            (r'nbdev (\d+\.\d+\.\d+)', version('nbdev'), 'settings.ini'), (r'pybullet-arm64`? (\d+\.\d+\.\d+)', version('pybullet-arm64'), 'settings.ini'),
            (r'(?:about|약) (\d+\.\d+) ?GB', disk, 'tools/numbers.txt')]


def test_counts_versions_and_sizes_in_prose_come_from_one_place():
    "Guard: the Space and its card said 4.2 million parameters, everything else 4.7."
    files = [file for pattern in PROSE for file in sorted(ROOT.glob(pattern))]
    for said, right, where in one_place():
        found = [(file.name, next(filter(None, m.groups()))) for file in files for m in re.finditer(said, file.read_text(encoding='utf-8'))]
        assert found, f'nobody says {said} any more: take it out here'
        assert {number for _, number in found} == {right}, f'{where} says {right}: {[one for one in found if one[1] != right]}'


def test_the_time_of_a_page_is_the_same_on_it_and_on_the_front_page():
    listed = ''.join(''.join(cell['source']) for cell in house.cells(house.path_of('workshop/reference')))
    rows = re.findall(r'(?m)^\| \[[\w/]+\]\(\.\./([\w/]+)\.ipynb\) \| .*? \| (.*?) \|', listed)
    front = re.findall(r'(?m)^\| \[[\w/]+\]\(nbs/([\w/]+)\.ipynb\) \| .*? \| (.*?) \|', (ROOT/'README.md').read_text(encoding='utf-8').replace('\\*', '*'))
    assert front == rows[:len(front)] and len(front) == 11 and {name for name, _ in rows} == {*house.names()} - {'index', 'measure/results', 'workshop/reference'}
    odd, seen = [], 0
    for name, time in rows:
        cells = house.cells(house.path_of(name))
        m = re.search(r'Run all: (?:about |under )?([\w ]+?) on two CPU cores\.', '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown'))
        seen += bool(m)
        if m and m[1] != time: odd.append(f'{name}: {m[1]}, and {time} on the front page')
    assert not odd and seen >= 10
