"""Every notebook alone, as on Colab: on Python 3.13 with the versions that Colab publishes (tests/colab.txt), each on a machine of its own, which is a
copy of that image, in an empty folder, in a real Jupyter kernel, all cells, in shuffled order, with a Hub on 127.0.0.1. The install cell gets the wheel
of this checkout instead of GitHub's, and HUB a repository in which a small run was begun; nothing else differs. Then some of them once more on fresh
machines, which must go on from what was pushed. The table of results goes into CONTRIBUTING.md."""
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import house
import tyro
from nbdev.config import get_config

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'tests'), str(ROOT/'tools')]
import hub as loopback
from thinkact_nb.colab import MAY_CHANGE, TOO_OLD

HERE, REPOSITORY = ROOT/'.colab', 'tester/robot'
AGAIN = ('04_sft', '06_ppo', '07_eval')  # what goes on from the Hub on a second machine
BEGIN = """import sys
from dataclasses import replace
from thinkact_nb.env import get_profile
from thinkact_nb.store import Store
small = replace(get_profile("tiny"), demonstrations=45, sft_epochs=1, rl_updates=1, rl_batch=18, rl_micro_batch=9, eval_scenes=9, max_new_tokens=48)
Store(sys.argv[1], small, sys.argv[2]).finish()"""
EXECUTE = """import json, sys, nbformat
from nbclient import NotebookClient
nb = nbformat.read(sys.argv[1], 4)
client = NotebookClient(nb, timeout=1800, kernel_name="python3", resources=dict(metadata=dict(path=sys.argv[2])))
try: client.execute()
finally: nbformat.write(nb, sys.argv[3])"""
LIST = 'import importlib.metadata, json; print(json.dumps({d.metadata["Name"].lower().replace("_", "-"): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}))'


def run(*words, **settings): return subprocess.run([str(w) for w in words], check=True, text=True, **settings)


def image(python, torch=''):
    "A Python with Colab's packages, or with another torch among them, made once for each list."
    lines = (ROOT/'tests/colab.txt').read_text(encoding='utf-8').splitlines()
    if torch: lines = [f'torch=={torch}', 'torchvision', *(line for line in lines if not line.startswith(('torch==', 'torchvision==')))]
    folder, listed = HERE/('image' + torch), '\n'.join(lines)
    ready = folder/'ready'
    if ready.exists() and ready.read_text(encoding='utf-8') == listed: return folder
    shutil.rmtree(folder, ignore_errors=True)
    run(python, '-m', 'venv', folder)
    run(folder/'bin/python', '-m', 'pip', 'install', '-q', 'pip==24.1.2')
    (wanted := HERE/'wanted.txt').write_text(listed, encoding='utf-8')
    run(folder/'bin/python', '-m', 'pip', 'install', '-q', '-r', wanted)
    ready.write_text(listed, encoding='utf-8')
    return folder


class Failed(Exception): "What went wrong on a machine."


def text_of(nb): return '\n'.join(''.join(o.get('text', '')) for c in nb['cells'] for o in c.get('outputs', ()))


@dataclass
class Bench:
    "What all machines share."
    wheel: Path
    hub: object
    image: Path  # the Python that machines are copies of

    def environment(self, home):
        kept = {k: v for k, v in os.environ.items() if k in ('PATH', 'LANG') or k.startswith(('PIP_', 'SSL', 'REQUESTS'))}
        return kept | loopback.client(self.hub, home/'hf') | dict(HOME=str(home), COLAB_RELEASE_TAG='release-colab', COLAB_GPU='', IN_TEST='1', JUPYTER_PLATFORM_DIRS='1', OMP_NUM_THREADS='1',
                                                                  PIP_CACHE_DIR=str(HERE/'pip'), TOKENIZERS_PARALLELISM='false')

    def machine(self, name):
        "Run a notebook on a fresh machine: what it printed, seconds, seconds of the install cell, packages replaced."
        home = HERE/'home'
        python = HERE/'machine/bin/python'
        start = time.monotonic()
        for folder in (home, HERE/'machine'): shutil.rmtree(folder, ignore_errors=True)
        run('cp', '-al', self.image, HERE/'machine')
        (work := home/'content').mkdir(parents=True)
        text = house.path_of(name).read_text(encoding='utf-8')
        nb, cfg = json.loads(text), get_config()
        for cell in nb['cells']:
            source = ''.join(cell['source']).replace(f'git+{cfg.git_url}@{cfg.branch}', str(self.wheel))
            cell['source'] = re.sub('(?m)^(TRAIN|EVALUATE) = False', r'\1 = True', source.replace('HUB = ""', f'HUB = "{REPOSITORY}"'))
            if cell['cell_type'] == 'code': cell['outputs'] = []
        (home/'in.ipynb').write_text(json.dumps(nb), encoding='utf-8')
        (out := HERE/f'{name}.out.ipynb').parent.mkdir(exist_ok=True)
        before = json.loads(run(python, '-c', LIST, capture_output=True).stdout)
        done = subprocess.run([python, '-c', EXECUTE, home/'in.ipynb', work, out], env=self.environment(home), capture_output=True, text=True, encoding='utf-8')
        if done.returncode: raise Failed(done.stderr[-3000:])
        after = json.loads(run(python, '-c', LIST, capture_output=True).stdout)
        changed = {k: (v, after.get(k)) for k, v in before.items() if after.get(k) != v}
        if wrong := changed.keys() - {*MAY_CHANGE, *TOO_OLD}: raise Failed(f'the install cell replaced {", ".join(sorted(wrong))}')
        said = text_of(json.loads(out.read_text(encoding='utf-8')))
        if not re.search(r'physics by pybullet\S* \d', said): raise Failed('the install cell names no PyBullet')
        return said, round(time.monotonic() - start), int(re.search(r'ready after (\d+) s', said)[1]), changed


def table(rows, python, packages):
    lines = [f'Last run: {date.today()}, Python {python}, torch {packages["torch"]} kept, {len(rows)} machines, all passed. The first found nothing in the cache of `pip`.', '', '| notebook | machine | install cell, s | in all, s |', '|---|---|---|---|']
    return '\n'.join(lines + [f'| {name} | {which} | {install} | {seconds} |' for name, which, install, seconds in rows])


def main(
    names: tyro.conf.Positional[tuple[str, ...]] = (),  # pages, as in 06_ppo; none: all
    python: str = 'python3.13',      # for the image
    torch: str = '',                 # another torch than Colab's, as it may have next
    seed: int = 0,                   # of the order
    resume: Annotated[bool, tyro.conf.arg(help='go on where a run of this commit was cut off')] = False,
    write: Annotated[bool, tyro.conf.arg(help='put the table into CONTRIBUTING.md')] = False,
):
    base = image(python, torch)
    for old in ('dist', 'pip'): shutil.rmtree(HERE/old, ignore_errors=True)
    run(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', HERE/'dist', ROOT)
    bench = Bench(next((HERE/'dist').glob('*.whl')), loopback.serve(), base)
    shutil.rmtree(HERE/'begun', ignore_errors=True)
    run(sys.executable, '-c', BEGIN, HERE/'begun'/'run', REPOSITORY, env=os.environ | loopback.client(bench.hub, HERE/'begun'/'hf') | dict(PYTHONPATH=str(ROOT)))
    at = run('git', 'rev-parse', 'HEAD', cwd=ROOT, capture_output=True).stdout.strip() + torch
    kept = json.loads((HERE/'rows.json').read_text(encoding='utf-8')) if resume and (HERE/'rows.json').exists() else {}
    rows = [tuple(row) for row in kept.get(at, ()) if row[0] not in AGAIN]  # the Hub of that run is gone, and with it what the second machines take
    order = sorted(names) or [house.name_of(path) for path in house.pages()]
    failed = []
    random.Random(seed).shuffle(order)
    order = [name for name in order if name not in [row[0] for row in rows]]
    version = run(base/'bin/python', '-V', capture_output=True).stdout.split()[1]
    for which, some in (('first', order), ('second', [n for n in AGAIN if n in order])):
        for name in some:
            commits = len(bench.hub.repository(REPOSITORY).commits)
            try: said, seconds, install, changed = bench.machine(name)
            except Failed as e:
                print(f'{name} on the {which} machine: {e}', flush=True)
                failed.append(name)
                continue
            rows.append((name, which, install, seconds))
            (HERE/'rows.json').write_text(json.dumps({at: rows}), encoding='utf-8')
            print(f'{name:10} {which:6} {seconds:5} s, install {install} s, replaced {", ".join(f"{k} {a} → {b}" for k, (a, b) in changed.items())}', flush=True)
            if which == 'first': continue
            new = {title for title, _ in bench.hub.repository(REPOSITORY).commits[commits:]} - {'eval'}
            if f'from {REPOSITORY}' not in said or new:
                print(f'{name}: the second machine ' + (f'made again what was there: {new}' if new else 'took nothing from the Hub'))
                failed.append(name)
    if failed: sys.exit(f'failed: {", ".join(failed)}')
    print(found := table(rows, version, json.loads(run(base/'bin/python', '-c', LIST, capture_output=True).stdout)))
    if write:
        text = (file := ROOT/'CONTRIBUTING.md').read_text(encoding='utf-8')
        file.write_text(re.sub(r'(?s)(<!-- test-colab -->\n).*?(<!-- end -->)', lambda m: f'{m[1]}{found}\n{m[2]}', text), encoding='utf-8')


if __name__ == '__main__': tyro.cli(main)
