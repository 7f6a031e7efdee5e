"""An hour of bad luck: is anything lost, does any number change?

SFT, PPO and evaluation of the stand-in at tiny sizes, each on two machines (two run folders) that push to one Hub on 127.0.0.1, which fails
30 % of all requests. Meanwhile, at random: machines are killed, stopped by a signal, put to sleep in the middle of a request and begun anew,
now and then with an empty folder; workers are killed; all connections are cut. In every round that was not cut short, what both machines
have in the end, and every checkpoint that came to the Hub at a step where the twin saved one, must equal to the last bit what a twin that
nobody disturbed has made; and in every
commit, only what the store's own rule lets go may be gone.

    python tools/soak.py --minutes 60 --out .soak/result.json --write

Ends with 1 if something was lost, unequal, left behind or not done. Ctrl-C ends it early, and what was found until then is written."""
import argparse
import contextlib
import hashlib
import json
import multiprocessing
import multiprocessing.forkserver
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
import hub as loopback

JOBS = ('sft', 'ppo', 'eval')
STAGE = dict(sft='sft', ppo='rl/ppo', eval='eval')
FAILING = .3        # share of requests
HARMS = dict(process=4, worker=5, connection=4, signal=1)  # how often each is drawn
AGAIN = 3           # process kills of a machine in a round, at most: it has to end some day
ROUND = 900         # seconds; a round that takes longer hangs
KEEP = 2            # checkpoints that a push leaves, beside the best
SAME = ('adapter_model.safetensors', 'value_head.safetensors', 'optimizer.pt', 'scheduler.pt')  # equal to the last bit
SEAL = 'manifest.json'
BEGUN = re.compile(r'(?P<inside>.+/checkpoints/)(?P<name>checkpoint-(?P<step>\d+))')
# imported once, in a process that every machine is a copy of: on a busy computer they take longer than a tiny training
HEAVY = ('timm', 'trl.trainer.grpo_trainer', 'trl.trainer.sft_trainer', 'thinkact_nb.trainer', 'thinkact_nb.evaluate', 'thinkact_nb.model')
FORKS = multiprocessing.get_context('forkserver')


# what a round must not have done: from commits and files alone

def sealed(files):
    "The sealed folders among a repository's files, and the bytes of their manifests."
    ends = f'/{SEAL}'
    return {path.removesuffix(ends): data for path, data in files.items() if path.endswith(ends)}


def spared(title, files):
    "What the keep-rule lets a commit of this title take away: (folder, name that Git gives its manifest)."
    pushed = BEGUN.fullmatch(title)
    if not pushed or f'{title}/{SEAL}' not in files: return set()
    manifest = json.loads(files[f'{title}/{SEAL}'])
    line = manifest.get('line', {})
    newest = sorted((*line, pushed['name']), key=lambda name: int(name.rpartition('-')[2]))[-KEEP:]
    return {(pushed['inside'] + name, content) for name, content in line.items() if name not in (*newest, manifest.get('best'))}


def losses(commits):
    "Of a repository's commits, (title, files) each: what was sealed and went, or checkpoints that changed, against the rule."
    found = []
    for (_, before), (title, after) in zip(commits, commits[1:]):
        may, there = spared(title, after), sealed(after)
        for folder, manifest in sealed(before).items():
            changed = folder in there and BEGUN.fullmatch(folder) and there[folder] != manifest
            gone = folder not in there and (folder, loopback.object_id(manifest)) not in may
            if changed or gone: found.append(f'{folder} {"was changed" if changed else "went"} when {title} was pushed')
    return found


def torn(commits):
    "Sealed folders of the last commit, and of each that sealed one, that lack a file or have another than the manifest says."
    found = []
    for title, files in [*commits[1:], commits[-1]]:
        for folder in [title] if title in sealed(files) else []:
            for name, saved in json.loads(files[f'{folder}/{SEAL}'])['files'].items():
                data = files.get(f'{folder}/{name}', b'')
                if hashlib.sha256(data).hexdigest() != saved['sha256']: found.append(f'{folder}/{name} is not what its manifest says')
    return found


def weights(commits):
    "Of every folder that was ever sealed: {(folder, file): every SHA-256 it had}."
    found = {}
    for _, files in commits:
        for folder in sealed(files):
            for name in SAME:
                if f'{folder}/{name}' in files: found.setdefault((folder, name), set()).add(hashlib.sha256(files[f'{folder}/{name}']).hexdigest())
    return found


def between(folder, twin):
    "Whether a folder is a checkpoint that a signal asked for, at a step at which the twin saved none but has been."
    saved = BEGUN.fullmatch(folder)
    steps = [int(other['step']) for other in (BEGUN.fullmatch(name) for name, _ in twin) if saved and other and other['inside'] == saved['inside']]
    return bool(steps) and int(saved['step']) not in steps and int(saved['step']) < max(steps)


def differing(found, twin):
    "How many files were compared with the twin's, and a sentence for each that differs or that the twin does not have."
    found = {key: hashes for key, hashes in found.items() if key in twin or not between(key[0], twin)}
    wrong = [f'{"/".join(key)} differs from the twin\'s' for key, hashes in sorted(found.items()) if hashes != twin.get(key)]
    return sum(map(len, found.values())), wrong


def ends_of(job, run):
    "What a machine has in the end: {(stage, file): {SHA-256}}."
    folder = Path(run)/STAGE[job]
    if job == 'eval': return {('eval', 'episodes.parquet'): {rows_of(folder/'episodes.parquet')}}
    return {(STAGE[job], name): {hashlib.sha256((folder/name).read_bytes()).hexdigest()} for name in SAME if (folder/name).exists()}


def rows_of(file):
    "The SHA-256 of an episode table's rows, whatever their order."
    import pandas as pd
    table = pd.read_parquet(file)
    rows = sorted(repr(row) for row in table[sorted(table.columns)].itertuples(index=False, name=None))
    return hashlib.sha256('\n'.join(rows).encode()).hexdigest()


# one life of a machine

def small():
    from dataclasses import replace
    from thinkact_nb.env import get_profile
    return replace(get_profile('tiny'), sft_batch=4, sft_micro_batch=2, max_new_tokens=100, rl_batch=8, rl_micro_batch=4, eval_batch=9)


def patient():
    "Workers and requests are tried as often as they are harmed here, and between two tries nobody waits for long."
    from thinkact_nb import algorithms, hub, pool
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, .05))  # the client's own waits between its tries
    hub.Hub.tries = 40
    hub.Hub.longest = .05
    algorithms.SAVE_EVERY = 1
    pool.STARTS = 100


def work(job, run, repo):
    "What a user would run, at a tiny size."
    from thinkact_nb import data, evaluate, sft, trainer
    from thinkact_nb.pool import SimPool
    from thinkact_nb.store import Store
    from thinkact_nb.tasks import spread
    store = Store(run, small(), repo, shipped=job != 'sft')
    with SimPool(1, attempts=100) as pool:
        if job == 'sft':
            if not store.has('data'):
                data.make_dataset(18, store.begin('data'), pool)
                store.push('data')
            sft.train_sft(store, 0, True, steps=12, every=2, validation=2)
        if job == 'ppo': trainer.train_rl(store, pool, resume=True, updates=4)
        if job == 'eval': evaluate.evaluate(store, ['expert', 'random', 'sft'], spread(18, seed=30_000_000), pool, resume=True)
    store.finish()


def life(job, run, repo, said):
    "In a process of its own, and its workers in the same group."
    os.setpgid(0, 0)
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2): os.dup2(out, stream)
    patient()
    from thinkact_nb.env import UserError
    try: work(job, run, repo)
    except UserError as e:
        print(e, file=sys.stderr)
        sys.exit(getattr(e, 'status', 2))


# what befalls them

class Hub(loopback.Hub):
    "One whose connections can all be cut."
    def __init__(self, **settings):
        super().__init__(**settings)
        self.live = set()

    def process_request_thread(self, request, address):
        self.live.add(request)
        try: super().process_request_thread(request, address)
        finally: self.live.discard(request)

    def cut(self):
        "Cut what is there; how many that were."
        live = list(self.live)
        for connection in live:
            with contextlib.suppress(OSError): connection.shutdown(socket.SHUT_RDWR)
        return len(live)


@dataclass
class Result:
    "What was done and found."
    seed: int
    minutes: float = 0.
    rounds: Counter = field(default_factory=Counter)    # by job, and those cut short
    kills: Counter = field(default_factory=Counter)     # by kind
    restarts: Counter = field(default_factory=Counter)  # lives begun, fresh: with an empty folder
    requests: int = 0
    failed: int = 0       # requests that the Hub failed
    commits: int = 0
    refused: int = 0      # pushes that a newer commit overtook: decided anew
    compared: int = 0
    lost: list = field(default_factory=list)
    unequal: list = field(default_factory=list)
    faults: list = field(default_factory=list)  # ended with an error, hung, or left a worker behind

    @property
    def good(self): return not (self.lost or self.unequal or self.faults)

    def line(self):
        done = ', '.join(f'{self.rounds[j]} {j}' for j in (*JOBS, 'cut short') if self.rounds[j])
        harm = ', '.join(f'{n} {kind}' for kind, n in sorted(self.kills.items()))
        return (f'{self.minutes:5.1f} min; rounds: {done or "none"}; harm: {harm or "none"}; {self.failed} of {self.requests} requests failed; '
                f'{self.compared} comparisons, {len(self.lost)} lost, {len(self.unequal)} unequal, {len(self.faults)} faults')

    def look(self, commits, ends, twin):
        "Check what a round has left: its commits, and what its machines have."
        self.commits += len(commits) - 1
        self.lost += losses(commits) + torn(commits)
        for found in (weights(commits), *ends):
            n, wrong = differing(found, twin)
            self.compared += n
            self.unequal += wrong


class Machine:
    "A run folder, and the process that works in it."
    def __init__(self, folder, job, repo):
        self.folder = folder
        self.job = job
        self.repo = repo
        self.kills = 0
        self.done = False
        self.asleep = False
        self.said = folder.with_suffix('.txt')
        self.begin()

    def begin(self):
        self.asleep = False
        self.process = FORKS.Process(target=life, args=(self.job, str(self.folder), self.repo, str(self.said)))
        self.process.start()

    def signal(self, number, group=False):
        with contextlib.suppress(ProcessLookupError, PermissionError): (os.killpg if group else os.kill)(self.process.pid, number)

    def sleep(self, asleep):
        if asleep != self.asleep: self.signal(signal.SIGSTOP if asleep else signal.SIGCONT, group=True)
        self.asleep = asleep

    def workers(self):
        import psutil
        try: return [c for c in psutil.Process(self.process.pid).children() if 'spawn_main' in ' '.join(c.cmdline())]
        except psutil.Error: return []

    def end(self):
        for group in (True, False): self.signal(signal.SIGKILL, group)
        self.process.join(30)


class Soak:
    "Rounds of work and harm until the time is over."
    def __init__(self, minutes, seed, home, jobs=JOBS, say=print):
        self.home = Path(home)
        self.random = random.Random(seed)
        self.jobs = jobs
        self.say = say
        self.result = Result(seed)
        self.start, self.twins = time.monotonic(), {}
        self.over = self.start + 60*minutes
        self.hub = Hub(failing=0., seed=seed)
        threading.Thread(target=self.hub.serve_forever, daemon=True).start()
        os.environ.update(loopback.client(self.hub, self.home/'hf'), PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', TQDM_DISABLE='1', TOKENIZERS_PARALLELISM='false')
        os.environ['PYTHONWARNINGS'] = 'ignore:resource_tracker'  # what was killed could not tidy up
        FORKS.set_forkserver_preload(list(HEAVY))
        from thinkact_nb.env import quiet
        with quiet(): multiprocessing.forkserver.ensure_running()

    def twin(self, job):
        "What nobody disturbed has made: once."
        if job not in self.twins:
            machine, repo = Machine(self.home/f'twin-{job}', job, f'tester/twin-{job}'), f'tester/twin-{job}'
            try: machine.process.join(ROUND)
            finally: machine.end()
            if machine.process.exitcode: sys.exit(f'the twin of {job} ended with {machine.process.exitcode}:\n{machine.said.read_text(encoding="utf-8")[-3000:]}')
            self.twins[job] = weights(self.hub.repository(repo).commits) | ends_of(job, machine.folder)
            self.say(f'twin of {job}: {len(self.twins[job])} files after {time.monotonic() - self.start:.0f} s')
        return self.twins[job]

    def harm(self, machine):
        "One thing that goes wrong, now."
        kind = self.random.choices(list(HARMS), list(HARMS.values()))[0]
        if kind == 'connection':
            if self.hub.cut(): self.result.kills[kind] += 1
        elif kind == 'worker':
            for worker in machine.workers()[:1]:
                with contextlib.suppress(Exception): worker.kill()
                self.result.kills[kind] += 1
        elif machine.kills < AGAIN and machine.process.is_alive():
            workers = machine.workers()
            machine.kills += 1
            machine.sleep(False)
            machine.signal(signal.SIGKILL if kind == 'process' else signal.SIGTERM)
            self.result.kills[kind] += 1
            if kind == 'process': self.alone(workers)

    def alone(self, workers):
        "Workers of a machine that was killed must go too."
        import psutil
        _, left = psutil.wait_procs(workers, timeout=15)
        self.result.faults += [f'worker {w.pid} outlived its parent' for w in left]
        for worker in left:
            with contextlib.suppress(psutil.Error): worker.kill()

    def after(self, machine):
        "A process has ended: the machine is done, or begins again."
        status = machine.process.exitcode
        machine.signal(signal.SIGKILL, group=True)
        if status == 0: machine.done = True
        elif status in (-signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM, 2):
            if status == 2: self.result.kills['gave up'] += 1
            if self.random.random() < .4:
                shutil.rmtree(machine.folder, ignore_errors=True)
                self.result.restarts['fresh'] += 1
            self.result.restarts['lives'] += 1
            machine.begin()
        else:
            self.result.faults.append(f'{machine.job} ended with {status}: {machine.said.read_text(encoding="utf-8")[-1500:]}')
            machine.done = True

    def turn(self, machines):
        "Who is awake for the next seconds: mostly one alone, the other sleeps wherever it is."
        awake = [m for m in machines if not m.done]
        chosen = awake if self.random.random() < .15 else [self.random.choice(awake)]
        for machine in awake: machine.sleep(machine not in chosen)
        self.result.kills['sleep'] += len(awake) > len(chosen)
        return chosen, time.monotonic() + self.random.uniform(.5, 4)

    def round(self, job, repo):
        "Two machines, until both are done or the time is over; whether they are done."
        machines = [Machine(self.home/f'{repo.partition("/")[2]}-{n}', job, repo) for n in 'ab']
        until = 0.
        began = time.monotonic()
        harm = began + self.random.uniform(2, 8)
        try:
            while not all(m.done for m in machines):
                now = time.monotonic()
                if now > self.over: return [], False
                if now > began + ROUND:
                    told = ' | '.join(m.said.read_text(encoding='utf-8')[-700:] for m in machines if not m.done)
                    self.result.faults.append(f'a round of {job} hangs: {told}')
                    return [], False
                if now > until: chosen, until = self.turn(machines)
                if now > harm: harm = self.harm(self.random.choice(chosen)) or time.monotonic() + self.random.uniform(.5, 6)
                for machine in machines:
                    if not machine.done and not machine.process.is_alive():
                        self.after(machine)
                        until = 0.
                time.sleep(.05)
            return [ends_of(job, m.folder) for m in machines if m.process.exitcode == 0], True
        finally:
            for machine in machines: machine.end()

    def rounds(self):
        number = 0
        while time.monotonic() < self.over:
            job, repo = self.jobs[number % len(self.jobs)], f'tester/round{number}'
            self.hub.failing = 0.
            twin = self.twin(job)
            number = number + 1
            first = len(self.hub.log)
            self.hub.failing = FAILING
            ends, done = self.round(job, repo)
            self.hub.failing = 0.
            self.count(first)
            commits = self.hub.repositories['model', repo].commits if ('model', repo) in self.hub.repositories else [('', {})]
            self.result.rounds[job if done else 'cut short'] += 1
            self.result.look(commits, ends, twin)
            for folder in self.home.glob(f'round{number - 1}-*'): shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
            self.hub.repositories.pop(('model', repo), None)
            self.result.minutes = (time.monotonic() - self.start)/60
            self.say(self.result.line())

    def count(self, first):
        statuses = [status for *_, status in self.hub.log[first:]]
        self.result.requests += len(statuses)
        self.result.failed += sum(s in ('503', 'cut request', 'cut answer') for s in statuses)
        self.result.refused += statuses.count(412)
        del self.hub.log[first:]

    def __call__(self):
        try: self.rounds()
        except KeyboardInterrupt: self.say('stopped')
        finally:
            self.result.minutes = (time.monotonic() - self.start)/60
            self.hub.shutdown()
        return self.result


# what is kept

def table(found):
    "A result as Markdown."
    kills = found['kills']
    rounds = found['rounds']
    restarts = found['restarts']
    rows = [('rounds of SFT, PPO, evaluation (two machines each)', ', '.join(str(rounds.get(j, 0)) for j in JOBS)),
            ('rounds cut short by the end of the time', rounds.get('cut short', 0)),
            ('machines killed (`kill -9`)', kills.get('process', 0)), ('machines stopped by SIGTERM', kills.get('signal', 0)),
            ('simulator workers killed', kills.get('worker', 0)), ('times that all connections were cut', kills.get('connection', 0)),
            ('times that a machine was put to sleep', kills.get('sleep', 0)), ('times that a machine gave up and was begun again', kills.get('gave up', 0)),
            ('lives begun after a kill', f'{restarts.get("lives", 0)}, {restarts.get("fresh", 0)} of them with an empty folder'),
            ('requests, of which the Hub failed', f'{found["requests"]}, {found["failed"]}'),
            ('commits, and pushes that another machine overtook', f'{found["commits"]}, {found["refused"]}'),
            ('files compared with the twin\'s', found['compared']), ('**lost**', len(found['lost'])), ('**unequal**', len(found['unequal'])), ('**other faults**', len(found['faults']))]
    return '\n'.join([f'Last run: {found["date"]}, seed {found["seed"]}, {found["minutes"]:.0f} minutes.', '', '| | |', '|---|---|', *(f'| {what} | {n} |' for what, n in rows)])


def keep(found, file=ROOT/'CONTRIBUTING.md'):
    "Put a result between the marks of CONTRIBUTING.md."
    text = file.read_text(encoding='utf-8')
    file.write_text(re.sub(r'(?s)(<!-- soak -->\n).*?(<!-- end -->)', lambda m: f'{m[1]}{table(found)}\n{m[2]}', text), encoding='utf-8')


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=60., help='how long (default: %(default)g)')
    parser.add_argument('--seed', type=int, default=0, help='of all that goes wrong')
    parser.add_argument('--jobs', nargs='+', choices=JOBS, default=JOBS, help='what is done, in turn (default: all)')
    parser.add_argument('--out', type=Path, default=ROOT/'.soak'/'result.json', help='the result, as JSON (default: %(default)s)')
    parser.add_argument('--write', action='store_true', help='put the result into CONTRIBUTING.md')
    parser.add_argument('--table', action='store_true', help='only put the result that --out names into CONTRIBUTING.md')
    asked = parser.parse_args(words)
    if asked.table: return keep(json.loads(asked.out.read_text(encoding='utf-8')))
    def stop(*_): raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, stop)
    with tempfile.TemporaryDirectory(prefix='soak-') as home:
        result = Soak(asked.minutes, asked.seed, home, asked.jobs, lambda line: print(line, flush=True))()
    found = vars(result) | dict(date=str(date.today()))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    if asked.write: keep(found)
    print(*(f'LOST: {x}' for x in result.lost), *(f'UNEQUAL: {x}' for x in result.unequal), *(f'FAULT: {x}' for x in result.faults), result.line(), sep='\n')
    if not result.good: sys.exit(1)


if __name__ == '__main__': main()
