"""Changes one line of the package at a time and runs the tests that should notice.

The lines stand in tests/mutants.yaml: the old text, the new text, the tests, and what the change would mean.
A change that no test notices is a hole in the tests. Works on copies of the project: it changes nothing here."""
import argparse
import compileall
import hashlib
import json
import multiprocessing
import os
import py_compile
import queue
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = 'thinkact_nb'
LIST = 'tests/mutants.yaml'
KEPT = '.mutants.json'    # what an interrupted run has found, for --resume
SHARE = .95               # of the mutations that some test can notice
SLOWER = 6                # a test that takes this many times as long as without the mutation hangs
LEAST = 120               # seconds that every mutation gets
# imported once, in a process that is copied for every mutation: they take longer than most tests
HEAVY = ('datasets', 'gymnasium', 'hypothesis', 'pandas', 'pebble', 'peft', 'pybullet', 'pytest', 'scipy.stats',
         'statsmodels.stats.multitest', 'timm', 'torch', 'transformers', 'trl.trainer.grpo_trainer',
         'trl.trainer.sft_trainer', 'tyro')
FORKS = multiprocessing.get_context('forkserver')
LEFT_OUT = ('.*', '__pycache__', '*.egg-info', 'runs', '_docs', '_proc', 'build', 'dist')


@dataclass(frozen=True)
class Mutant:
    "One line of the package, changed."
    name: str
    means: str            # what the changed line would do
    old: str              # must stand in the package exactly once
    new: str
    tests: str            # as pytest takes them
    equivalent: str = ''  # why no test can tell the two lines apart


class Listed(Exception): "Something is wrong with the list or with the tests it names."


def read(root):
    "The list of a project."
    mutants = [Mutant(**entry) for entry in yaml.safe_load((Path(root)/LIST).read_text(encoding='utf-8'))]
    names = [m.name for m in mutants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice: raise Listed(f'{LIST}: {", ".join(twice)} is listed twice')
    return mutants


def modules(root): return sorted(p for p in (Path(root)/PACKAGE).rglob('*.py') if p.name != '_modidx.py')


def find(mutant, root):
    "The module that holds the old text. Raises `Listed` if the mutation does not apply."
    counts = {path: path.read_text(encoding='utf-8').count(mutant.old) for path in modules(root)}
    times = sum(counts.values())
    if times != 1: raise Listed(f'does not apply: its old text stands in {PACKAGE}/ {times} times, not once')
    if '\n' in mutant.old + mutant.new or mutant.old == mutant.new:
        raise Listed('does not apply: it must change one line')
    path = max(counts, key=counts.get)
    try: compile(path.read_text(encoding='utf-8').replace(mutant.old, mutant.new), path.name, 'exec')
    except SyntaxError as e: raise Listed(f'does not apply: the changed line is not Python ({e.msg})')
    return path


def inside(copy, tests, said):
    "In a process of its own: runs pytest on a copy of the project."
    os.setsid()  # what the tests begin is killed with them
    for stream in (1, 2): os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(copy)
    os.environ['PYTHONPATH'] = copy
    sys.path.insert(0, copy)
    import pytest
    import thinkact_nb
    if not thinkact_nb.__file__.startswith(copy): sys.exit(f'these are not the tests of {copy}: {thinkact_nb.__file__}')
    sys.exit(int(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', *shlex.split(tests)])))


def pytest(copy, tests, seconds):
    "Runs tests in a copy: pytest's exit status, None if it took too long, and what it said."
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder)/'said'
        said.touch()
        process = FORKS.Process(target=inside, args=(str(copy), tests, str(said)))
        process.start()
        process.join(max(.1, seconds))
        status = process.exitcode
        try: os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError: process.kill()
        process.join()
        return status, said.read_text(errors='replace', encoding='utf-8')


class Run:
    "Mutations tried in copies of the project, a few at a time, until the time is over."
    def __init__(self, root, minutes, workers, resume):
        self.root = Path(root)
        self.end = time.monotonic() + 60*minutes
        self.workers = workers
        self.copies = queue.SimpleQueue()
        self.seconds = {}
        self.print_lock = threading.Lock()
        self.state = self.fingerprint()
        self.found, self.tried = self.table_file() if resume else {}, {}

    def fingerprint(self):
        "Changes with the package and its tests."
        files = [*modules(self.root), *sorted((self.root/'tests').glob('*.*'))]
        return hashlib.sha256(b'\0'.join(p.read_bytes() for p in files)).hexdigest()

    def table_file(self):
        "What an interrupted run has found, if the package and its tests are still the same."
        file = self.root/KEPT
        kept = json.loads(file.read_text(encoding='utf-8')) if file.exists() else {}
        return kept.get('found', {}) if kept.get('state') == self.state else {}

    def keep(self, name, result):
        self.found[name] = result
        part = self.root/f'{KEPT}.part'
        part.write_text(json.dumps(dict(state=self.state, found=self.found)), encoding='utf-8')
        part.replace(self.root/KEPT)

    def each(self, work, items):
        "Does some work for every item, with a copy of the project that nobody else uses meanwhile."
        def borrow(item):
            copy = self.copies.get()
            try: return work(copy, item)
            finally: self.copies.put(copy)
        with ThreadPoolExecutor(self.workers) as threads: return list(threads.map(borrow, items))

    def check(self, copy, tests):
        "The tests pass as long as nothing is changed. Raises `Listed` if not."
        start = time.monotonic()
        status, said = pytest(copy, tests, self.end - start)
        self.seconds[tests] = time.monotonic() - start
        with self.print_lock: print(f'unchanged {tests} ({self.seconds[tests]:.0f} s)', flush=True)
        if status is None: raise Listed(f'{tests}: not done when the time was over')
        if status in (4, 5): raise Listed(f'{tests}: no such tests')
        if status: raise Listed(f'{tests}: fails with no mutation, so it can kill none:\n{said[-2000:]}')

    def attempt(self, copy, mutant):
        "Whether the tests notice a mutation: killed, survived, timeout, broken or not run."
        start = time.monotonic()
        limit = max(LEAST, SLOWER*self.seconds[mutant.tests])
        path = find(mutant, copy)
        before = path.read_text(encoding='utf-8')
        path.write_text(before.replace(mutant.old, mutant.new), encoding='utf-8')
        try: status, said = pytest(copy, mutant.tests, min(limit, self.end - start))
        finally: path.write_text(before, encoding='utf-8')
        names = {0: 'survived', 1: 'killed', None: 'timeout'}
        result = 'not run' if status is None and time.monotonic() >= self.end else names.get(status, 'broken')
        with self.print_lock:
            if result in ('killed', 'survived'): self.keep(mutant.name, result)  # what hung is tried again
            self.tried[mutant.name] = result
            place = path.relative_to(copy)
            print(f'{result:9} {mutant.name} ({place}, {time.monotonic() - start:.0f} s)', flush=True)
            if result == 'broken': print(said[-2000:], flush=True)

    def __call__(self, mutants):
        "What became of each mutation."
        left = [m for m in mutants if m.name not in self.found]
        with tempfile.TemporaryDirectory() as folder:
            for i in range(self.workers):
                copy = Path(folder).resolve()/str(i)
                shutil.copytree(self.root, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
                # what is not changed is compiled once; a changed module is known by its hash, not by its time
                by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
                compileall.compile_dir(copy/PACKAGE, quiet=2, invalidation_mode=by_hash)
                self.copies.put(copy)
            self.each(self.check, dict.fromkeys(m.tests for m in left))
            self.each(self.attempt, left)
        return {m.name: (self.found | self.tried).get(m.name, 'not run') for m in mutants}


def report(mutants, results):
    "Sentences on what survived, and whether enough was killed."
    real, same = ([m for m in mutants if bool(m.equivalent) == wanted] for wanted in (False, True))
    killed = sum(results[m.name] == 'killed' for m in real)
    lines = [f'{results[m.name].upper()}: {m.name}: {m.means}' for m in real if results[m.name] != 'killed']
    lines += [f'equivalent: {m.name}: {m.equivalent}' for m in same if results[m.name] != 'killed']
    wrong = [m.name for m in same if results[m.name] == 'killed']
    lines += [f'KILLED, though listed as equivalent: {name}' for name in wrong]
    counts = {r: sum(results[m.name] == r for m in real) for r in ('survived', 'timeout', 'broken', 'not run')}
    others = ', '.join(f'{n} {r}' for r, n in counts.items())
    share = killed/len(real) if real else 1.
    enough = f'{share:.1%}; at least {SHARE:.0%} are asked for'
    lines.append(f'{killed} of {len(real)} mutations killed ({enough}), {others}, {len(same)} equivalent')
    return lines, share >= SHARE and not wrong


def main(words=None, root=ROOT):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', metavar='NAME', help='try these mutations (default: all)')
    parser.add_argument('--minutes', type=float, default=30., help='stop after this long (default: %(default)g)')
    parser.add_argument('--workers', type=int, choices=(1, 2), default=2, help='at once (default: %(default)d)')
    parser.add_argument('--resume', action='store_true', help='keep what an interrupted run has found')
    parser.add_argument('--check', action='store_true', help='only say whether the list applies to the package')
    asked = parser.parse_args(words)
    try:
        mutants = read(root)
        unknown = set(asked.only or ()) - {m.name for m in mutants}
        if unknown: raise Listed(f'{LIST} has no {", ".join(sorted(unknown))}')
        mutants = [m for m in mutants if not asked.only or m.name in asked.only]
        faults = []
        for m in mutants:
            try: find(m, root)
            except Listed as e: faults.append(f'{m.name}: {e}')
        if faults: raise Listed('\n'.join(faults))
        if asked.check: return print(f'{len(mutants)} mutations apply')
        os.environ.update(PYTHONDONTWRITEBYTECODE='1', OMP_NUM_THREADS='1', TQDM_DISABLE='1')
        FORKS.set_forkserver_preload(HEAVY)
        start = time.monotonic()
        lines, enough = report(mutants, Run(root, asked.minutes, asked.workers, asked.resume)(mutants))
    except Listed as e: sys.exit(str(e))
    print(*lines, f'{(time.monotonic() - start)/60:.1f} minutes', sep='\n')
    if not enough: sys.exit(1)


if __name__ == '__main__': main()
