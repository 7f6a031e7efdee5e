"""What somebody meets who opens one page on Colab and chooses *Run all*, without Colab: every cell of start and of the pages 00 to 09, also those that the
tests leave out, each page in an empty folder with an empty home. Nothing is set at the top, so nothing trains that takes longer than five minutes; a page
that takes longer than ten minutes of a core fails. With --hub the pages that make a run are tabs of one: each on its own machine, HUB set to a
repository on 127.0.0.1, TRAIN and EVALUATE on, at tiny sizes and without the lessons, and each must take from the repository what the one before
pushed, and none of it from the package."""
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import house
import tyro

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'tests'), str(ROOT/'tools')]
import hub as loopback
from check_colab import BEGIN, REPOSITORY

HERE, MOST = ROOT/'.tabs', 10  # minutes of a core
TABS = ('02_data', '04_sft', '06_ppo', '07_eval', '09_report')
TAKES = {'04_sft': ['demonstrations'], '06_ppo': ['SFT adapter'], '07_eval': ['SFT adapter', 'PPO adapter'], '09_report': ['episode table']}
LENT = re.compile(r"in run\b.*(?:comes with thinkact_nb|of the stand-in's demo run)")  # said of the run, not of a lesson's


def cells(text, **forms):
    "A notebook's code as a learner would have it who filled in the form at its top."
    for name, value in forms.items(): text = re.sub(rf'(?m)^{name} = .* #@param', lambda m: f'{name} = {json.dumps(value) if isinstance(value, str) else value} #@param', text)
    return text


def execute(source, out):
    "Runs a notebook in this process and this folder, as a fresh kernel would, and writes it with its outputs."
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    nb, shell = read_nb(source), CaptureShell(mpl_format='png')
    for cell in nb.cells:
        if cell.cell_type != 'code' or 'nbdev_export(' in cell.source: continue
        cell.outputs = []
        shell.cell(cell)
        if shell.exc:
            write_nb(nb, out)
            sys.exit(f'cell {cell.id}: {type(shell.exc).__name__}: {shell.exc}')
    write_nb(nb, out)


def needed(source):
    "Whether a cell is no lesson: an import, part of the module, or one that the tests leave out, as are the form and the last section."
    first = next((line for line in source.splitlines() if not line.startswith('#|')), '')
    return source.startswith(('#| export', '#| eval: false')) or first.startswith(('import ', 'from '))


def machine(name, settings, forms, lessons=True):
    "A page on a machine of its own: what it said, seconds, seconds of processors, and the fault if there was one."
    home = HERE/name
    shutil.rmtree(home, ignore_errors=True)
    (work := home/'content').mkdir(parents=True)
    nb = json.loads((house.path_of(name)).read_text(encoding='utf-8'))
    nb['cells'] = [c for c in nb['cells'] if lessons or c['cell_type'] == 'code' and needed(''.join(c['source']))]
    for cell in nb['cells']:
        if cell['cell_type'] == 'code': cell['source'] = cells(''.join(cell['source']), **forms)
    (home/'in.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    kept = {k: v for k, v in os.environ.items() if k in ('PATH', 'LANG', 'IN_TEST', 'OMP_NUM_THREADS', 'OMP_WAIT_POLICY')}
    env = kept | dict(HOME=str(home), PYTHONPATH=str(ROOT), TOKENIZERS_PARALLELISM='false', TQDM_DISABLE='1', MPLBACKEND='agg', HF_HOME=str(home/'hf')) | settings
    start, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, Path(__file__).resolve(), '--execute', home/'in.ipynb', home/'out.ipynb'], cwd=work, env=env, capture_output=True, text=True, encoding='utf-8')
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = done.stdout + done.stderr
    if (home/'out.ipynb').exists():
        outputs = [o for c in json.loads((home/'out.ipynb').read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', ())]
        said += '\n'.join(''.join(o.get('text', '')) for o in outputs)
    return said, time.monotonic() - start, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, done.stderr[-2000:] if done.returncode else ''


def main(
    names: tyro.conf.Positional[tuple[str, ...]] = (),  # pages; none: start and 00 to 09, or with --hub those that make a run
    hub: Annotated[bool, tyro.conf.arg(help='one run across tabs')] = False,
):
    failed = []
    forms = {}
    settings = {}
    if hub:
        served = loopback.serve()
        begun = HERE/'begun'
        shutil.rmtree(begun, ignore_errors=True)
        client = lambda folder: {k: str(v) for k, v in loopback.client(served, folder).items()}
        subprocess.run([sys.executable, '-c', BEGIN, begun/'run', REPOSITORY], env=os.environ | client(begun/'hf') | dict(PYTHONPATH=str(ROOT)), check=True)
        forms = dict(HUB=REPOSITORY, TRAIN=True, EVALUATE=True)
    for name in names or (TABS if hub else ('start', *house.course())):
        if hub: settings = client(HERE/name/'hf') | dict(IN_TEST='1')
        said, seconds, used, fault = machine(name, settings, forms, lessons=not hub)
        if hub and not fault:
            taken = set(re.findall(rf'([\w ]+): from {REPOSITORY}', said))
            if missing := [what for what in TAKES.get(name, ()) if what not in taken]: fault = f'took no {missing[0]} from the repository'
            if lent := LENT.search(said): fault = fault or lent[0]
        if hub and name == '09_report' and not fault:
            training = json.loads((HERE/name/'content/run/report/report.json').read_text(encoding='utf-8'))['training']
            if len(training.get('ppo', ())) != 1: fault = 'the report shows the training of another run'
        if not hub and used > MOST*60: fault = fault or f'takes longer than {MOST} minutes'
        print(f'{name:10} {seconds:5.0f} s, {used:4.0f} s of processors{": " + fault if fault else ""}', flush=True)
        if fault: failed.append(name)
    if failed: sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
    if sys.argv[1:2] == ['--execute']: execute(*sys.argv[2:])
    else: tyro.cli(main)
