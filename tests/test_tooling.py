"The tools around the notebooks, on a tiny project of two notebooks."
import ast
import graphlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.pop('VIRTUAL_ENV', None)  # of the shell that runs the tests: IPython warns of one that is not its own
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT/'tools'))
import boxes
import house

PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=='

INDEX = [('markdown', '<a href="00_first.ipynb"><img src="dot.svg" alt="Open In Colab"/></a>'),
         ('markdown', '# Tiny\n> a project for tests'),
         ('markdown', 'Read [the first](00_first.ipynb#double), [the second](deep/second.ipynb) and the [licence](https://www.apache.org/licenses/).'),
         ('code', "table = {'a': abs}\ntable['a'](-1)")]
FIRST = [('markdown', '# First\n> one function'), ('code', '#| default_exp first'),
         ('code', '#| export\ndef double(x): # a number\n    "Twice `x`"\n    return 2*x'),
         ('code', 'assert double(2) == 4\ndouble(2)'), ('markdown', 'Back to the [start](index.ipynb), see ![a dot](dot.svg).')]
SECOND = [('markdown', '# Second\n> one more'), ('code', '#| default_exp second'), ('code', '#| export\nfrom thinkact_nb.first import double'),
          ('code', '#| export\ndef twice(x): # a number\n    "Four times `x`, by `double`"\n    return double(double(x))'),
          ('markdown', 'From [the first](../00_first.ipynb#double) to the [start](../index.ipynb), see ![a dot](../dot.svg).')]


def notebook(cells):
    out = []
    for i, (kind, source) in enumerate(cells):
        cell = dict(cell_type=kind, id=f'cell{i}', metadata={}, source=source.splitlines(True))
        out.append(cell | dict(execution_count=None, outputs=[]) if kind == 'code' else cell)
    return dict(cells=out, metadata={}, nbformat=4, nbformat_minor=5)


def write(path, nb): path.write_text(json.dumps(nb, indent=1, sort_keys=True, ensure_ascii=False) + '\n', encoding='utf-8')


def run(project, *args):
    "Runs a tool in `project`: (exit status, what it said)"
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    cmd = [sys.executable, *([ROOT/'tools'/args[0]] if args[0].endswith('.py') else ['-c', args[0]]), *args[1:]]
    done = subprocess.run(cmd, cwd=project, env=env, text=True, capture_output=True, encoding='utf-8')
    return done.returncode, (done.stdout + done.stderr).strip()


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    project = tmp_path_factory.mktemp('made')
    nbs = project/'nbs'
    nbs.mkdir()
    shutil.copy(ROOT/'settings.ini', project)
    (project/'_quarto.yml').write_text('website: {sidebar: {contents: [index.ipynb, {section: All, contents: [00_first.ipynb, deep/second.ipynb]}]}}\n', encoding='utf-8')
    (nbs/'_quarto.yml').symlink_to('../_quarto.yml')
    (nbs/'dot.svg').write_text('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>', encoding='utf-8')
    (nbs/'styles.css').touch()
    write(nbs/'index.ipynb', notebook(INDEX))
    write(nbs/'00_first.ipynb', notebook(FIRST))
    (nbs/'deep').mkdir()
    write(nbs/'deep/second.ipynb', notebook(SECOND))
    assert run(project, 'from nbdev.doclinks import nbdev_export as e; e.__wrapped__()') == (0, '')
    assert run(project, 'readme.py') == (0, '')
    return project


@pytest.fixture
def project(made, tmp_path): return Path(shutil.copytree(made, tmp_path/'project', symlinks=True))


def test_in_sync(project):
    assert run(project, 'check_sync.py') == (0, '')
    assert run(project, 'readme.py', '--check') == (0, '')


def test_hand_edited_module_is_found(project):
    module = project/'thinkact_nb/first.py'
    edited = module.read_text(encoding='utf-8').replace('return 2*x', 'return x*2')
    module.write_text(edited, encoding='utf-8')
    status, said = run(project, 'check_sync.py')
    assert status == 1 and said.startswith('thinkact_nb/first.py: line ') and said.count('\n') == 0
    assert module.read_text(encoding='utf-8') == edited


def test_module_without_notebook_and_notebook_without_module(project):
    (project/'thinkact_nb/first.py').rename(project/'thinkact_nb/old.py')
    status, said = run(project, 'check_sync.py')
    assert status == 1 and 'old.py: no notebook exports it' in said and 'first.py: not there' in said


def test_unclean_notebook_is_found(project):
    path = project/'nbs/00_first.ipynb'
    nb = json.loads(path.read_text(encoding='utf-8'))
    nb['cells'][3]['execution_count'] = 7
    write(path, nb)
    status, said = run(project, 'check_sync.py')
    assert status == 1 and said.startswith('nbs/00_first.ipynb: not clean at line ')


def test_accelerator_survives_cleaning(project):
    path = project/'nbs/00_first.ipynb'
    write(path, json.loads(path.read_text(encoding='utf-8')) | dict(metadata=dict(accelerator='GPU', colab=dict(gpuType='T4'))))
    assert run(project, 'check_sync.py') == (0, '')


def test_readme_links_work_from_the_root(project):
    readme = (project/'README.md').read_text(encoding='utf-8')
    assert '(nbs/00_first.ipynb#double)' in readme and 'href="nbs/00_first.ipynb"' in readme and 'src="nbs/dot.svg"' in readme
    assert '(https://www.apache.org/licenses/)' in readme and "table['a'](-1)" in readme


def test_stale_readme_is_found(project):
    (project/'README.md').write_text((project/'README.md').read_text(encoding='utf-8') + 'more\n', encoding='utf-8')
    status, said = run(project, 'readme.py', '--check')
    assert status == 1 and said.startswith('README.md: not what nbs/index.ipynb gives')


def test_site(project):
    status, said = run(project, 'build_site.py')
    assert status == 0, said
    page = (project/'_docs/first.html').read_text(encoding='utf-8')
    assert 'id="double"' in page and 'href="index.html"' in page and 'a number' in page
    assert 'href="first.html#double"' in (project/'_docs/index.html').read_text(encoding='utf-8')


def test_a_signature_is_folded_and_says_no_more_than_can_be_read(project):
    "Guard: defaults of 2,828 characters, links of Markdown inside code, Python's own docstring; nbdev's processing of a page calls it."
    from signatures import folded_text
    given = '### f\n\n```python\ndef f(\n    x:int, # from [`g`](https://a.b/c.html#g)\n    words:tuple=({}),\n    kind:{}=None,\n)->int: # y\n```\n\n{}'
    text = folded_text(given.format('"a", ' * 99, 'int | ' * 99 + 'str', '*Adds.*'))
    assert text == ('### f\n\n*Adds.*\n\n<details class="signature"><summary>Signature</summary>\n\n```python\n'
                    'def f(\n    x:int, # from `g`\n    words:tuple=…,\n    kind=None,\n)->int: # y\n```\n\n</details>\n')
    assert 'Call self' not in folded_text(given.format('', 'int', '*Call self as a function.*'))
    assert folded_text('no signature') == 'no signature'
    assert run(project, 'build_site.py')[0] == 0
    page = (project/'_docs'/'first.html').read_text(encoding='utf-8')
    assert page.index('Twice') < page.index('<details class="signature">') < page.index('# a number')


def test_a_page_in_a_folder(project):
    "Guard: links, pictures, style, search and module of a page that lies deeper than the index."
    assert run(project, 'build_site.py')[0] == 0
    page = (project/'_docs/deep/second.html').read_text(encoding='utf-8')
    assert all(f'"../{name}"' in page for name in ('first.html#double', 'index.html', 'dot.svg', 'site.css', 'site.js', 'search.js', 'first.html'))
    for file, words in {'_docs/first.html': 'href="deep/second.html"',
                        '_docs/search.js': '"deep/second.html#twice"',
                        'thinkact_nb/second.py': 'File to edit: ../nbs/deep/second.ipynb',
                        'thinkact_nb/_modidx.py': "'deep/second.html#twice'",
                        'README.md': '(nbs/deep/second.ipynb)'}.items():
        assert words in (project/file).read_text(encoding='utf-8'), file


def test_site_names_every_broken_link(project):
    bad = [('markdown', 'A [page](99_gone.ipynb), an [anchor](00_first.ipynb#nowhere), a picture ![](gone.png).')]
    write(project/'nbs/index.ipynb', notebook(INDEX + bad))
    status, said = run(project, 'build_site.py')
    assert status == 1 and said.splitlines() == ['index.html: missing: 99_gone.ipynb', 'index.html: no such anchor: first.html#nowhere',
                                                 'index.html: missing: gone.png']


def test_site_names_notebooks_outside_the_sidebar(project):
    (project/'_quarto.yml').write_text('website: {sidebar: {contents: [index.ipynb, 01_gone.ipynb]}}\n', encoding='utf-8')
    status, said = run(project, 'build_site.py')
    assert status == 1 and 'the sidebar names 01_gone.ipynb' in said
    assert all(f'{name}.ipynb is not in the sidebar' in said for name in ('00_first', 'deep/second'))


def test_linkcheck(tmp_path):
    from linkcheck import check
    base = 'https://example.org/site'
    page = '<p id="here"><a href="#here">1</a><a href="{0}/b.html#there">2</a><a href="https://example.org/siteelse">3</a><a href="#">4</a></p>'
    (tmp_path/'index.html').write_text(page.format(base), encoding='utf-8')
    (tmp_path/'b.html').write_text('<h2 id="there">é</h2><a href="../out.html">5</a><img src="data:image/png;base64,AA==">', encoding='utf-8')
    assert check(tmp_path, base) == ['b.html: leaves the site: ../out.html']
    (tmp_path/'b.html').write_text('<p>no anchor</p>', encoding='utf-8')
    assert check(tmp_path, base) == [f'index.html: no such anchor: {base}/b.html#there']


def test_a_link_that_says_report_leads_to_one(tmp_path):
    "Guard: the report of the long run was replaced by a page of its name, and every link to it still led somewhere."
    from linkcheck import REPORT, check
    (tmp_path/'index.html').write_text('<a href="run.html">the report of the long run</a> <a href="run.html">reinforce/long_run</a> <a href="report.html">Report</a>', encoding='utf-8')
    (tmp_path/'report.html').write_text('<title>Experiment reports</title>', encoding='utf-8')
    (tmp_path/'run.html').write_text('<title>A long run</title>', encoding='utf-8')
    assert check(tmp_path) == ['index.html: says report and leads to none: run.html']
    (tmp_path/'run.html').write_text(f'<title>{REPORT}</title>', encoding='utf-8')
    assert check(tmp_path) == []
    assert f'{{% block title %}}{REPORT}{{% endblock %}}' in (ROOT/'thinkact_nb/templates/report.html').read_text(encoding='utf-8')


def test_no_resource_shares_the_name_of_a_page(project):
    "Guard: nbs/long_run.html was a report, and reinforce/long_run.ipynb rendered over it."
    quarto = project/'_quarto.yml'
    quarto.write_text('project: {resources: [dot.svg, first.html, gone.html]}\n' + quarto.read_text(encoding='utf-8'), encoding='utf-8')
    (project/'nbs/first.html').write_text('<title>a report</title>', encoding='utf-8')
    status, said = run(project, 'build_site.py')
    assert status == 1 and said.splitlines() == ['_quarto.yml: the resource first.html has the name of the page of 00_first.ipynb: rename the file',
                                                 '_quarto.yml: the resource gone.html is not in nbs',
                                                 'first.html: not the file of that name in nbs: does a page share its name?']
    from linkcheck import resources
    assert {'gallery.html', 'report_policies.html', 'film.mp4'} <= set(resources(ROOT/'nbs')) and all((ROOT/'nbs'/name).is_file() for name in resources(ROOT/'nbs'))


def test_outputs_on_a_page():
    from build_site import fence, output_markdown
    saved = []
    save = lambda data, suffix: saved.append(data) or f'1.{suffix}'
    image = dict(output_type='display_data', data={'image/png': PIXEL, 'text/plain': ['<Figure>']}, metadata={'image/png': {'width': 320}})
    assert output_markdown(image, {'fig-cap': 'A dot'}, save) == '![A dot](1.png){width=320px}' and saved[0][1:4] == b'PNG'
    assert output_markdown(image, {'fig-alt': 'A dot, red'}, save) == '![A dot, red](1.png){width=320px}\\'
    assert output_markdown(dict(output_type='stream', text=['\x1b[31mred\x1b[0m\n']), {}, save) == '```\nred\n```'
    assert fence('a ``` b') == '````\na ``` b\n````'


def test_progress_bars_are_not_kept():
    from run_notebooks import tidy
    stream = lambda text, name='stdout': dict(output_type='stream', name=name, text=text.splitlines(True))
    bars = '\rscenes:   0%|          | 0/2 [00:00<?, ?it/s]\rscenes: 100%|##########| 2/2 [00:00<00:00, 9it/s]\n'
    assert tidy([stream(bars)]) == []
    assert tidy([stream(bars + 'saved\n')])[0]['text'] == ['saved\n']
    assert tidy([stream('/home/me/lib.py:3: FutureWarning\n', 'stderr')]) == []


def test_run_notebooks_keeps_texts_as_lines_and_pictures_as_they_are():
    "Guard: an SVG was one line of 60,000 characters."
    from run_notebooks import tidy
    shown = dict(output_type='display_data', data={'image/svg+xml': '<svg>\n</svg>', 'text/plain': 'a\nb', 'image/png': 'iVBO\n'})
    assert tidy([shown])[0]['data'] == {'image/svg+xml': ['<svg>\n', '</svg>'], 'text/plain': ['a\n', 'b'], 'image/png': 'iVBO\n'}


@pytest.mark.parametrize('directives, left', [({'eval:': ['false']}, True), ({'eval': 'false'}, True), ({'eval:': ['False']}, True), ({'cuda': []}, True), ({'cuda': ''}, True),
                                              ({'eval:': ['true']}, False), ({'export': []}, False), ({}, False)])
def test_run_notebooks_reads_directives_of_nbdev_2_and_3(directives, left):
    "Guard: under nbdev 3 it would have run the install cell."
    from run_notebooks import left_out
    assert left_out(directives, {'cuda', 'slow'}) == left


@pytest.mark.parametrize('path', [*map(house.path_of, house.names())], ids=house.name_of)
def test_every_cell_has_an_id_of_its_own_and_texts_are_lines(path):
    "Guard: one id stood twice in turns/turns, and two SVGs were one line each; nbdev 3 changes both."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    assert len({cell['id'] for cell in cells}) == len(cells)
    kept = [(cell['id'], kind) for cell in cells for out in cell.get('outputs', []) for kind, body in out.get('data', {}).items()
            if isinstance(body, str) and kind.startswith(('text/', 'image/svg'))]
    assert not kept


def test_run_notebooks_replaces_outputs(project):
    path = project/'nbs/00_first.ipynb'
    nb = json.loads(path.read_text(encoding='utf-8'))
    nb['cells'][3] |= dict(outputs=[dict(output_type='stream', name='stdout', text=['old\n'])])
    write(path, nb)
    assert run(project, 'run_notebooks.py')[0] == 0
    assert json.loads(path.read_text(encoding='utf-8'))['cells'][3]['outputs'][0]['data']['text/plain'] == ['4']
    nb['cells'][3]['source'] = ['1/0']
    write(path, nb)
    assert run(project, 'run_notebooks.py') == (1, '00_first.ipynb: cell 3 (cell3): ZeroDivisionError: division by zero')


def test_an_output_that_is_not_what_the_code_gives_is_found(project):
    "Guard: 04 showed pictures of 160 px a day after its code drew larger ones, and 05 thinks that no rerun wrote."
    path = project/'nbs/00_first.ipynb'
    nb = json.loads(path.read_text(encoding='utf-8'))
    def stored(text): nb['cells'][3]['outputs'] = [dict(output_type='execute_result', data={'text/plain': [text]}, metadata={})]
    for text, status in (('4', 0), ('5', 1)):
        stored(text)
        write(path, nb)
        kept = path.read_text(encoding='utf-8')
        assert run(project, 'run_notebooks.py', '--check')[0] == status and path.read_text(encoding='utf-8') == kept
    assert "cell cell3 says something else: '5' is now '4'" in run(project, 'run_notebooks.py', '--check')[1]
    status, told = run(project, 'run_notebooks.py')
    assert status == 0 and 'says something else' in told and run(project, 'run_notebooks.py', '--check')[0] == 0


def test_what_legitimately_differs_between_two_runs_is_not_compared():
    from run_notebooks import alike, said
    shown = lambda text, html='': [dict(output_type='display_data', data={'text/plain': [text]} | ({'text/html': [html]} if html else {}))]
    same = lambda a, b: alike(said(shown(*a)), said(shown(*b)))
    assert same(['made in 2.5 s in /tmp/tmpab12cd34/run, 0x7f3a'], ['made in 31 s in /home/me/run, 0x11'])
    assert same(['loss 0.12345'], ['loss 0.12346']) and not same(['loss 0.123'], ['loss 0.133']) and not same(['34 tokens'], ['32 tokens'])
    page = lambda think, data: ['<IPython.core.display.HTML object>', f'<img src="data:image/png;base64,{data}"><p>{think}</p>']
    assert same(page('a block', 'AAAA'), page('a block', 'BBBB')) and not same(page('a block', 'AAAA'), page('a pad', 'AAAA'))


SUMS = """def add(a, b): return a + b
def first(some): return some[0]
def down(n):
    while n > 0: n = n - 1
    return n
def same(x): return x * 1
"""
TESTS = "from thinkact_nb.sums import add, down, first, same\ndef test(): assert (add(2, 3), first([4]), down(2), same(5)) == (5, 4, 0, 5)\n"
ENTRIES = dict(minus=('a + b', 'a - b'), last=('some[0]', 'some[-1]'), forever=('n = n - 1', 'n = n - 0'), unnamed=('def add(', 'def plus('),
               gone=('a * b', 'a / b'), twice=('return', 'yield'), broken=('a + b', 'a +'))
MUTATE = """import sys
sys.path.insert(0, {tools!r})
import mutants
mutants.HEAVY, mutants.LEAST, mutants.SLOWER = (), 12, 12  # a busy machine kills nothing
if __name__ == '__main__': mutants.main(sys.argv[1:], '.')
"""


@pytest.fixture
def mutated(tmp_path):
    "A project of one module and one test; runs the mutations of these names: (exit status, what was said)."
    for folder, files in dict(thinkact_nb={'__init__.py': '', 'sums.py': SUMS}, tests={'test_sums.py': TESTS}).items():
        (tmp_path/folder).mkdir()
        for name, text in files.items(): (tmp_path/folder/name).write_text(text, encoding='utf-8')

    def tried(names, *words, equivalent=''):
        entries = [dict(name=n, means='it', old=ENTRIES[n][0], new=ENTRIES[n][1], tests='tests/test_sums.py', equivalent=equivalent) for n in names]
        (tmp_path/'tests/mutants.yaml').write_text(json.dumps(entries), encoding='utf-8')
        return run(tmp_path, MUTATE.format(tools=str(ROOT/'tools')), *words)
    return tried


@pytest.mark.long
def test_mutations_are_killed_or_survive(mutated):
    "Guard: what no test notices, what hangs and what breaks the tests themselves is said by name and does not count as killed."
    status, said = mutated(['minus', 'last', 'forever', 'unnamed'])
    found = dict(line.split()[:2][::-1] for line in said.splitlines() if '(thinkact_nb/sums.py' in line)
    assert status == 1 and found == dict(minus='killed', last='survived', forever='timeout', unnamed='broken'), said
    assert '1 of 4 mutations killed (25.0%; at least 95% are asked for), 1 survived, 1 timeout, 1 broken' in said
    status, said = mutated(['minus', 'last'], '--only', 'minus')
    assert status == 0 and '1 of 1 mutations killed' in said


def test_a_mutation_that_no_longer_applies_is_not_killed(mutated):
    "Guard: after a refactoring the old text is gone, stands twice, or the new line is no Python; nothing is run then."
    status, said = mutated(['minus', 'gone', 'twice', 'broken'])
    assert status == 1 and [line.split(':')[0] for line in said.splitlines()] == ['gone', 'twice', 'broken'] and 'killed' not in said
    assert all('does not apply' in line for line in said.splitlines())
    assert mutated(['minus'], '--check') == (0, '1 mutations apply') and 'has no fly' in mutated(['minus'], '--only', 'fly')[1]


@pytest.mark.long
def test_equivalent_mutations_do_not_count_but_must_survive(mutated):
    "Guard: a reason that is not true fails."
    status, said = mutated(['last'], equivalent='a list of one')
    assert status == 0 and 'equivalent: last: a list of one' in said and '0 of 0 mutations' in said
    status, said = mutated(['minus'], equivalent='it is not')
    assert status == 1 and 'KILLED, though listed as equivalent: minus' in said


def test_mutations_are_not_tried_with_tests_that_fail_anyway(mutated, tmp_path):
    "Guard: a test that always fails would kill everything."
    (tmp_path/'tests/test_sums.py').write_text('def test(): assert 0', encoding='utf-8')
    status, said = mutated(['minus'])
    assert status == 1 and 'fails with no mutation' in said and 'killed' not in said


@pytest.mark.long
def test_mutation_testing_ends_in_time_and_goes_on(mutated, tmp_path):
    "Guard: what there was no time for is said and fails; --resume keeps what was found, as long as nothing changed."
    status, said = mutated(['minus'], '--minutes', '0')
    assert status == 1 and 'not done when the time was over' in said
    assert mutated(['minus', 'last'], '--only', 'minus')[0] == 0
    status, said = mutated(['minus', 'last'], '--resume')
    assert status == 1 and 'minus (' not in said and 'survived  last (' in said and '1 of 2' in said
    (tmp_path/'thinkact_nb/sums.py').write_text(SUMS + '# changed', encoding='utf-8')
    assert 'minus (' in mutated(['minus', 'last'], '--resume')[1]


def test_the_list_of_mutations_applies():
    "Guard: a line that is rewritten takes its entry in tests/mutants.yaml along."
    import mutants
    listed, faults = mutants.read(ROOT), []
    for mutant in listed:
        try: mutants.find(mutant, ROOT)
        except mutants.Listed as e: faults.append(f'{mutant.name}: {e}')
    assert not faults and len(listed) >= 60


def test_what_gets_installed(monkeypatch):
    import setuptools
    told = {}
    monkeypatch.setattr(setuptools, 'setup', told.update)
    runpy.run_path(str(ROOT/'setup.py'))
    extras = told['extras_require']
    assert set(extras['dev']) > {*extras['train'], *extras['tune'], *extras['notebook']}
    light = ' '.join(told['install_requires'])
    assert 'fastcore<' not in light and 'nbdev' not in light and 'torch' not in light
    assert told['entry_points']['nbdev'] == ['thinkact_nb=thinkact_nb._modidx:d']


def test_the_korean_readme_has_the_same_commands_and_links():
    english, korean = ((ROOT/name).read_text(encoding='utf-8') for name in ('README.md', 'README.ko.md'))
    blocks = lambda text: re.findall(r'^``` ?(?:sh|python)\n(.*?)^```', text, re.M | re.S)
    notebooks = lambda text: re.findall(r'^\| \[(\w+)\]', text, re.M)
    badges = lambda text: re.findall(r'blob/main/nbs/([\w/]+)\.ipynb', text)
    for same in (blocks, notebooks, badges): assert same(english) == same(korean) and same(english)
    reference = ''.join(''.join(cell['source']) for cell in house.cells(house.path_of('workshop/reference')))
    listed = lambda text: re.findall(r'^\| `(thinkact [^`]*|\w+)` \|', text, re.M)  # commands, tasks and levels
    assert listed(reference) == listed(korean) and len(listed(reference)) > 20


def test_a_page_imports_only_pages_before_it():
    """Guard: what a page takes must have been shown. The course comes first in the sidebar, so its pages may also take
    what lies in a box; but no page takes of itself by way of others."""
    place, taken = {name: n for n, name in enumerate(house.names())}, boxes.takes()
    may = lambda page, other: place[other] < place[page] or house.in_course(page) and '/' in other
    late = [f'{page} imports from {other}' for page, others in taken.items() for other in others if not may(page, other)]
    assert not late and {'00_env', '01_sim', '06_ppo'} <= set(taken) and len(taken) > 30
    assert [*graphlib.TopologicalSorter(taken).static_order()]


def test_a_box_takes_only_of_boxes_that_stand_below_it():
    "Guard: an arrow of the house that leads upward; two boxes that take of each other are one."
    floor = {box: n for n, box in enumerate(house.boxes())}
    assert not [f'{a} takes of {b}' for a, b in boxes.arrows() if floor[b] > floor[a]]


def test_the_picture_of_the_house_is_drawn_from_the_imports():
    "Guard: a module moves, and the picture says otherwise. `python tools/boxes.py` draws it again."
    assert boxes.PICTURE.read_text(encoding='utf-8') == boxes.drawn()
    assert {*boxes.pages_of_boxes()} <= {*boxes.ABOUT}


def test_nbs_holds_the_course_and_folders():
    "Guard: a page that is of no box, a folder that the sidebar does not have, two pages of one address."
    names = house.names()
    top = [name for name in names if '/' not in name]
    assert not [name for name in top if name not in house.FRONT and not house.in_course(name)]
    listed = [item.removesuffix('.ipynb') for item in house.leaves(house.sidebar())]
    assert sorted(listed) == sorted(names) and len({*map(house.address, names)}) == len(names)
    assert not {*house.former()} & {*names} and {*house.former().values()} <= {*names}


def test_a_former_address_leads_to_the_page_of_today(project):
    "Guard: a page is renamed, and whoever kept its address meets nothing."
    import redirects
    site, old = project/'_docs', house.former()
    redirects.write(site)
    today = {*map(house.address, house.names())}
    for name, now in old.items():
        for at in {house.address(name), f'{name}.html'} - today:
            assert f'"{house.address(now)}" + location.hash' in (site/at).read_text(encoding='utf-8')


def test_badges_and_links_follow_a_page_that_moved(monkeypatch):
    "Guard: a page moves, and its badge opens another on Colab; a link by a former name leads nowhere."
    import links
    monkeypatch.setattr(house, 'former', lambda: {'99_old': '06_ppo'})
    badge = 'https://colab.research.google.com/github/you/it/blob/main/nbs'
    assert links.badged(f'{badge}/99_old.ipynb, {badge}/01_sim.ipynb', 'deep/new') == f'{badge}/deep/new.ipynb, {badge}/01_sim.ipynb'
    row = f'| [06](06_ppo.ipynb) | PPO | <a href="{badge}/99_old.ipynb"> |'
    assert links.badged(row, 'index') == row.replace('99_old', '06_ppo')
    deep = f'{badge}/deep/list.ipynb {row.replace("(06_ppo", "(../keep/store")}'
    assert links.badged(deep, 'deep/list') == deep.replace('99_old', 'keep/store')
    assert links.led_on('[a](99_old.ipynb#x) [b](../01_sim.ipynb)', 'deep/new', house.NBS) == '[a](../06_ppo.ipynb#x) [b](../01_sim.ipynb)'
    assert links.led_on('[a](99_old.ipynb) [c](gone.ipynb)', 'start', house.NBS) == '[a](06_ppo.ipynb) [c](gone.ipynb)'


def test_no_module_takes_a_private_name_of_another():
    "Guard: what another page needs has a name that is kept."
    private = [f'{page} imports {name} of {of}' for page, _, taken in boxes.imports() for of, name in taken if name[0] == '_']
    assert not private


def test_whoever_uses_checkpoints_takes_the_store_that_has_them():
    "Guard: keep/checkpoints patches them onto `Store`; where its import is forgotten, a training ends with an AttributeError at its first checkpoint."
    parsed = {path: [*ast.walk(ast.parse(path.read_text(encoding='utf-8')))] for folder in ('thinkact_nb', 'tests', 'tools', 'benchmark', 'space')
              for path in sorted((ROOT/folder).glob('*.py'))}
    names = {n.name for n in parsed[ROOT/'thinkact_nb/checkpoints.py'] if isinstance(n, ast.FunctionDef) and n.decorator_list and n.name[0] != '_'}
    users, late = set(), []
    for path, nodes in parsed.items():
        asked = [n for n in nodes if isinstance(n, ast.Attribute) and n.attr in names and re.search(r'store$|^Store\(', ast.unparse(n.value))]
        takes = {(n.module or '').rpartition('.')[2] for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names if a.name == 'Store'}
        if asked: users.add(path.stem)
        if asked and takes != {'checkpoints'}: late.append(f'{path.name}: {ast.unparse(asked[0])}, and Store from {takes}')
    assert names == {'anew', 'away', 'checkpoint', 'keep'} and {'train', 'sft', 'trainer', 'test_trust'} <= users and not late
    code = 'from thinkact_nb.checkpoints import Store; print(*(hasattr(Store, name) for name in {names!r}))'
    done = subprocess.run([sys.executable, '-c', code.format(names=names)], env=os.environ | dict(PYTHONPATH=str(ROOT)), capture_output=True, text=True, encoding='utf-8')
    assert done.stdout.split() == ['True'] * 4, done.stderr


def exported():
    "Each page's exported cells: (page, number of the cell, its lines without directives)"
    for path in house.lessons():
        for i, cell in enumerate(house.cells(path)):
            lines = ''.join(cell['source']).split('\n')
            if cell['cell_type'] == 'code' and lines[0].startswith('#| export'): yield house.name_of(path), i, [l for l in lines if not l.startswith('#|')]


def test_exported_lines_fit_120_columns_and_cells_40_lines():
    "Guard: code that is read on a page is read without scrolling, and a cell holds one idea."
    wide = [f'{page} [{i}]: {line[:60]}' for page, i, lines in exported() for line in lines if len(line) > 120]
    tall = [f'{page} [{i}]: {len(lines)} lines' for page, i, lines in exported() if len(lines) > 40]
    assert not wide + tall


def test_modules_have_few_characters_a_line():
    """Guard: 39.48 is what CleanRL's cleanrl/*.py have (November 2026, ends of lines left out); a quarter more is as dense as
    code here may get. The folder of a page, which nbdev writes above each cell, is no code."""
    texts = [path.read_text(encoding='utf-8') for path in (ROOT/'thinkact_nb').glob('[a-z]*.py')]
    lines = [re.sub(r'(\.\./nbs/)\w+/', r'\1', line) for text in texts for line in text.splitlines()]
    assert sum(map(len, lines)) / len(lines) <= 1.25 * 39.48


def test_no_exported_argument_binds_a_name():
    "Guard: who reads a call does not look for assignments in it."
    calls = [(page, i, node) for page, i, lines in exported() for node in ast.walk(ast.parse('\n'.join(lines))) if isinstance(node, ast.Call)]
    named = [f'{page} [{i}]: {arg.target.id}' for page, i, call in calls for arg in ast.walk(call) if isinstance(arg, ast.NamedExpr)]
    assert not named


def bound(tree):
    "Names that a cell binds in the notebook's namespace, imports left out."
    inner = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    if isinstance(tree, (ast.FunctionDef, ast.ClassDef)): return {tree.name}
    if isinstance(tree, inner): return {n.target.id for n in ast.walk(tree) if isinstance(n, ast.NamedExpr)}
    own = {tree.id} if isinstance(tree, ast.Name) and isinstance(tree.ctx, ast.Store) else set()
    return own.union(*map(bound, ast.iter_child_nodes(tree)))


@pytest.mark.parametrize('path', house.lessons(), ids=house.name_of)
def test_no_lesson_rebinds_what_its_notebook_exports(path):
    "Else a cell further down, which only Colab runs, meets the lesson's value."
    cells = [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    parsed = [(ast.parse(re.sub(r'(?m)^(\s*)[%!].*', r'\1pass', s)), '#| export' in s) for s in cells]
    exported, lessons = (set().union(*(bound(tree) for tree, e in parsed if e == wanted)) for wanted in (True, False))
    patched = {node.name for tree, e in parsed if e for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and any(getattr(d, 'id', '') == 'patch' for d in node.decorator_list)}
    assert not (exported - patched) & lessons


@pytest.mark.parametrize('chosen, then', [({}, '10000'), (dict(GOMP_SPINCOUNT='7'), '7'), (dict(OMP_WAIT_POLICY='PASSIVE'), 'None')])
def test_threads_spin_shortly_unless_the_user_chose(chosen, then):
    "Guard: the package's `__init__`. Without it a training beside another process takes many times as long."
    env = {k: v for k, v in os.environ.items() if k not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')} | chosen | dict(PYTHONPATH=str(ROOT))
    said = subprocess.run([sys.executable, '-c', 'import sys, os, thinkact_nb; print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)'], env=env, capture_output=True, text=True, encoding='utf-8')
    assert said.stdout.split() == [then, 'False']


def test_a_number_of_prose_that_no_output_has_is_found(tmp_path, monkeypatch):
    "Guard: outputs are made again and sentences are not; four moves stood as three, 97 minutes as an hour."
    import check_numbers
    cells = [('markdown', '# In 2024\n\nPPO solves 63.7 % of 1,224 scenes in 97 minutes; see `k=99`, [57](x.ipynb), <loc29> and L0.\n\n14. A rule.'),
             ('code', "rates = {'ppo': 0.6372}\nn = 1_224")]
    write(tmp_path/'00_first.ipynb', notebook(cells))
    found = check_numbers.unfounded([tmp_path/'00_first.ipynb'], tmp_path)
    assert [written for written, _ in found['00_first.ipynb']] == ['97']
    nb = notebook(cells)
    nb['cells'][1]['outputs'] = [dict(output_type='stream', text='97.2 minutes')]
    write(tmp_path/'00_first.ipynb', nb)
    assert check_numbers.unfounded([tmp_path/'00_first.ipynb'], tmp_path) == {}
    monkeypatch.setattr(check_numbers, 'KNOWN', tmp_path/'numbers.txt')
    (tmp_path/'numbers.txt').write_text('# why\n00_first.ipynb | 97 | measured once\n', encoding='utf-8')
    assert check_numbers.ledger() == {('00_first.ipynb', '97'): 'measured once'}


def test_search_finds_sections_and_the_sidebar_links_to_reports():
    from build_site import search_entries, sidebar
    body = '<html><body><aside><li>no</li></aside><main><h1>A page</h1><p>Of <b>robots</b>.</p><h2 id="b">Part</h2><pre>x = 1</pre><table><tr><td>7</td></tr></table></main></body></html>'
    assert search_entries(body, 'a.html', 'A') == [dict(page='A', title='A', href='a.html', text=' Of robots.'), dict(page='A', title='Part', href='a.html#b', text=' x = 1 7')]
    items = ['index.ipynb', {'section': 'Reports', 'contents': [{'text': 'Cases', 'href': 'gallery.html'}]}]
    assert house.leaves(items) == ['index.ipynb'] and '<a href="gallery.html">Cases</a>' in sidebar(items, {'index.ipynb': ('index.html', 'Start')}, 'index.ipynb')
