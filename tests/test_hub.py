"The run folder and its Hub repository: the real client against a Hub on loopback that fails, refuses, or is not there."
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
import hub as loopback

BEGIN = '''
import json, shutil, sys, time
from pathlib import Path
from thinkact_nb.env import *
from thinkact_nb.files import *
from thinkact_nb.hub import *
from thinkact_nb.store import *
from thinkact_nb.checkpoints import *
Hub.longest, sleep = .05, time.sleep
time.sleep = lambda seconds: sleep(min(seconds, .05))  # the client's own waits between its tries
def train(store, step, size=1000):
    (folder := store.path("sft") / f"checkpoints/checkpoint-{step}").mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(bytes([step]) * size)
    (folder / "trainer_state.json").write_text(json.dumps(dict(global_step=step, max_steps=30, log_history=[])))
    store.keep("sft", folder, None, dict(seed=0))
def finished(store):
    "A stage with the adapter configuration of this project."
    (store.path("sft") / "adapter_config.json").write_bytes((SHIPPED / "sft/adapter_config.json").read_bytes())
    return store
'''


@pytest.fixture
def hub():
    yield (served := loopback.serve())
    served.shutdown()


def python(hub, home, code, token='hf_good', **env):
    env = os.environ | loopback.client(hub, home, token) | {'PYTHONPATH': str(ROOT)} | env
    return subprocess.run([sys.executable, '-c', BEGIN + code], env=env, text=True, capture_output=True, cwd=home, encoding='utf-8')


def good(done):
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_a_checkpoint_is_one_commit_with_a_manifest_that_a_fresh_machine_verifies(hub, tmp_path):
    done = good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); [train(store, n) for n in (1, 2, 3)]; store.hub.finish()'))
    assert 'Hub tester/run: 3 pushed' in done.stderr
    repository = hub.repository('tester/run')
    assert repository.private
    assert [title for title, _ in repository.commits[1:]] == ['begin'] + [f'sft/checkpoints/checkpoint-{n}' for n in (1, 2, 3)]
    assert {f.split('/')[2] for f in repository.files if f.startswith('sft/')} == {'checkpoint-2', 'checkpoint-3'}   # the last two
    for step, (_, files) in enumerate(repository.commits[2:], 1):
        manifest = json.loads(files[f'sft/checkpoints/checkpoint-{step}/manifest.json'])
        assert {f'sft/checkpoints/checkpoint-{step}/{name}' for name in manifest['files']} <= set(files)
    done = good(python(hub, tmp_path, 'store = Store("b", hub="tester/run"); found = store.checkpoint("sft", dict(seed=0)); print(found.name, damage(found), store.config == Path("a/config.json").read_text())'))
    assert done.stdout.split() == ['checkpoint-3', 'None', 'True']


def test_a_checkpoint_that_was_cut_short_on_the_hub_is_not_chosen(hub, tmp_path):
    good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); [train(store, n) for n in (1, 2, 3)]'))
    files = hub.repository('tester/run').files
    files['sft/checkpoints/checkpoint-3/adapter_model.safetensors'] = b'short'
    files['sft/checkpoints/checkpoint-9/adapter_model.safetensors'] = b'no manifest'
    done = good(python(hub, tmp_path, 'print(Store("b", hub="tester/run").checkpoint("sft").name)'))
    assert done.stdout == 'checkpoint-2\n' and 'checkpoint-3 has 5 bytes of adapter_model.safetensors, and 1000 were saved' in done.stderr


@pytest.mark.parametrize('damaged', ['truncated', 'edited', 'unfinished', 'missing'])
def test_a_damaged_local_checkpoint_steps_aside_for_the_one_before(hub, tmp_path, damaged):
    harm = dict(truncated='file.write_bytes(bytes(3))', edited='file.write_bytes(bytes(1000))', unfinished='(file.parent / "manifest.json").unlink()', missing='file.unlink()')[damaged]
    code = f'store = Store("a"); [train(store, n) for n in (1, 2)]; file = store.run / "sft/checkpoints/checkpoint-2/adapter_model.safetensors"; {harm}; print(store.checkpoint("sft").name)'
    done = good(python(hub, tmp_path, code))
    assert done.stdout == 'checkpoint-1\n' and 'checkpoint-2' in done.stderr


@pytest.mark.parametrize('seed', range(3))
def test_every_checkpoint_arrives_whole_though_a_third_of_the_requests_fail(tmp_path, seed):
    hub = loopback.serve(failing=.3, seed=seed)
    done = good(python(hub, tmp_path, 'Hub.tries = 30; store = Store("a", hub="tester/run"); [train(store, n) for n in range(1, 4)]; store.hub.finish(); print("trained")'))
    assert done.stdout == 'trained\n' and '3 pushed' in done.stderr and 'not pushed' not in done.stderr, done.stderr
    assert sum(status in ('503', 'cut request', 'cut answer') for *_, status in hub.log) > 3
    seen = {}
    for _, files in hub.repository('tester/run').commits:
        for step in range(1, 4):
            there = {f: d for f, d in files.items() if f.startswith(f'sft/checkpoints/checkpoint-{step}/')}
            if there: seen[step] = {Path(f).name for f in there} == {'adapter_model.safetensors', 'trainer_state.json', 'manifest.json'} and seen.get(step, True)
    assert seen == {1: True, 2: True, 3: True}
    done = good(python(hub, tmp_path, 'Hub.tries = 30; found = Store("b", hub="tester/run").checkpoint("sft"); print(found.name, damage(found))'))
    assert done.stdout == 'checkpoint-3 None\n'
    hub.shutdown()


def test_a_hub_that_refuses_stops_nothing_and_what_is_left_is_sent_at_the_end(hub, tmp_path):
    refused = []
    def quota(method, path):
        if '/commit/' in path and len(refused) < 2: refused.append(path); return 403
    good(python(hub, tmp_path, 'Store("a", hub="tester/run")'))
    hub.refuse = quota
    done = good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); train(store, 1); train(store, 2); store.hub.finish()'))
    assert 'not pushed to tester/run (this token may not write to tester/run (HTTP 403)' in done.stderr and '2 pushed' in done.stderr
    hub.refuse = lambda method, path: '/commit/' in path and 401
    done = good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); train(store, 3); print("trained")'))
    assert done.stdout == 'trained\n' and 'Hub tester/run: not pushed: sft/checkpoints/checkpoint-3 (HTTP 401)' in done.stderr


def test_without_login_or_network_work_stays_local_and_that_is_said_once(hub, tmp_path):
    work = 'for _ in range(2): store = Store("a", hub="tester/run")\ntrain(store, 1); print(store.checkpoint("sft").name)'
    done = good(python(hub, tmp_path, work, token=''))
    assert done.stdout == 'checkpoint-1\n' and done.stderr.count('no Hub login') == 1
    done = good(python(hub, tmp_path, work.replace('"a"', '"b"').replace('for', 'Hub.tries = 1\nfor'), HF_ENDPOINT='http://127.0.0.1:9'))
    assert done.stdout == 'checkpoint-1\n' and 'not pushed' in done.stderr


@pytest.mark.parametrize('repo, planted, said', [
    ('other/run', None, 'is not yours to write to'),
    ('tester/run', 'model.safetensors', 'holds something else than a run'),
    ('tester/run', 'config.json', 'holds another run')])
def test_a_repository_of_somebody_else_is_refused(hub, tmp_path, repo, planted, said):
    hub.repositories['model', repo] = loopback.Repository(repo == 'tester/run')
    if planted: hub.repository(repo).files[planted] = b'{}'
    done = python(hub, tmp_path, f'store = Store("a")\ntry: Store("a", hub="{repo}")\nexcept UserError as e: print(e)')
    assert said in good(done).stdout


SAID = """
def begin(run, repo, resume=False, token=None):
    connect.cache_clear(), say.cache_clear()
    if token is not None: os.environ.pop("HF_TOKEN", None), os.environ.update(HF_TOKEN=token)
    try: Store(run, hub=repo, resume=resume)
    except UserError as e: print(repo, resume, "refused:", e)
    else: print(repo, resume, "begun")
"""
REFUSED = [('hf_wrong', 'tester/run', False, 'the Hub does not know this token (HTTP 401)'), ('hf_wrong', 'tester/run', True, 'the Hub does not know this token (HTTP 401)'),
           ('hf_read', 'tester/run', False, 'this token may only read (HTTP 403)'), ('hf_read', 'tester/none', True, 'this token may only read (HTTP 403)'),
           ('hf_blind', 'tester/run', True, 'this token may not write to tester/run (HTTP 403)'), ('hf_good', 'other/run', True, 'other/run is not yours to write to (HTTP 403): tester is logged in'),
           ('', 'tester/run', True, 'without a login the Hub shows no tester/run'), ('', 'tester/none', True, 'without a login the Hub shows no tester/none')]
BEGUN = [('', 'tester/none', False), ('', 'tester/open', True), ('hf_good', 'tester/run', True), ('hf_good', 'tester/new', True)]


def test_what_a_token_may_not_do_is_said_before_the_work(hub, tmp_path):
    "Guard: 401, 403 and 404 had one cause, `not yours to write to`; and without a login --resume began a run anew (huggingface_hub#1653, sillsdev/silnlp#791)."
    for name, private in (('tester/run', True), ('other/run', True), ('tester/open', False)): hub.repositories['model', name] = loopback.Repository(private)
    before = {name: len(repository.commits) for (_, name), repository in hub.repositories.items()}
    done = good(python(hub, tmp_path, f'import os{SAID}for token, repo, resume in {[case[:3] for case in REFUSED]}: begin("new", repo, resume, token)'))
    for (_, repo, resume, said), line in zip(REFUSED, done.stdout.splitlines(), strict=True): assert line.startswith(f'{repo} {resume} refused: {said}'), line
    assert not (tmp_path/'new').exists() and before == {name: len(repository.commits) for (_, name), repository in hub.repositories.items()}, 'a refused run leaves nothing'
    assert not any(case[0] in done.stdout + done.stderr for case in REFUSED if case[0])
    done = good(python(hub, tmp_path, f'import os{SAID}for i, (token, repo, resume) in enumerate({BEGUN}): begin(f"run{{i}}", repo, resume, token)'))
    assert done.stdout.splitlines() == [f'{repo} {resume} begun' for _, repo, resume in BEGUN]


def test_a_hub_that_cannot_be_reached_is_no_refusal_but_continues_nothing(hub, tmp_path):
    "Guard: offline, --resume began anew on a fresh machine what was on the Hub."
    done = good(python(hub, tmp_path, f'import os\nHub.tries = 1{SAID}begin("a", "tester/run"); begin("b", "tester/run", True)', HF_ENDPOINT='http://127.0.0.1:9'))
    begun, refused = done.stdout.splitlines()
    assert begun == 'tester/run False begun' and refused.startswith('tester/run True refused: cannot look at tester/run (ConnectError), so it cannot be continued')
    assert 'token' not in done.stdout + done.stderr and not (tmp_path/'b').exists()


def test_the_command_line_says_resume_to_the_store(monkeypatch):
    from thinkact_nb import cli, options
    asked = []
    monkeypatch.setattr(options, 'Store', lambda *words, **named: asked.append(named))
    for words in (['data', '--hub', 'a/b'], ['data', '--hub', 'a/b', '--resume']): cli.parse(words).store()
    assert [named['resume'] for named in asked] == [False, True]


def test_a_token_that_expires_during_the_work_loses_nothing(hub, tmp_path):
    "Guard: what is not pushed stays, and is said with its cause."
    hub.refuse = lambda method, path: 401 if '/commit/' in path and len(hub.repository('tester/run').commits) > 1 else None
    done = good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); train(store, 1); print(store.checkpoint("sft").name)'))
    assert done.stdout == 'checkpoint-1\n' and 'not pushed to tester/run (the Hub does not know this token (HTTP 401)' in done.stderr


def test_what_is_not_data_is_not_fetched(hub, tmp_path):
    good(python(hub, tmp_path, 'finished(Store("a", hub="tester/run")).push("sft")'))
    files = hub.repository('tester/run').files
    manifest = json.loads(files['sft/manifest.json'])
    manifest['files']['evil.pkl'] = dict(size=1, sha256=hashlib.sha256(b'x').hexdigest())
    files |= {'sft/evil.pkl': b'x', 'sft/manifest.json': json.dumps(manifest).encode()}
    done = good(python(hub, tmp_path, 'store = Store("b", hub="tester/run")\ntry: store.require("sft", "adapter_config.json")\nexcept UserError as e: print(e)'))
    assert 'holds evil.pkl, which is not fetched' in done.stdout and not (tmp_path/'b/sft/evil.pkl').exists()


def test_files_that_cannot_come_back_are_left_alone_and_harm_nothing(hub, tmp_path):
    "Guard: a .DS_Store was sealed and pushed, and the stage could never be fetched again."
    good(python(hub, tmp_path, """
store = finished(Store("a", hub="tester/run"))
for name in (".DS_Store", "notes.txt", "nul.json", "CON.md"): (store.path("sft") / name).write_text("mine")
store.push("sft")"""))
    assert {f for f in hub.repository('tester/run').files if f.startswith('sft/')} == {'sft/adapter_config.json', 'sft/manifest.json'}
    assert (tmp_path/'a/sft/.DS_Store').read_text(encoding='utf-8') == 'mine'
    done = good(python(hub, tmp_path, 'print(Store("b", hub="tester/run").require("sft", "adapter_config.json"))'))
    assert done.stdout == f'{tmp_path}/b/sft\n'


def test_a_finished_stage_comes_from_the_hub_and_no_token_is_written(hub, tmp_path):
    good(python(hub, tmp_path, 'finished(Store("a", hub="tester/run")).push("sft")'))
    done = good(python(hub, tmp_path, 'print(Store("b", hub="tester/run").require("sft", "adapter_config.json"))'))
    assert done.stdout == f'{tmp_path}/b/sft\n'
    assert not [f for f in tmp_path.rglob('*') if f.is_file() and b'hf_good' in f.read_bytes()]


def steps(hub, stage='sft'):
    "The steps whose checkpoints the repository has."
    return sorted({int(f.split('/')[2].removeprefix('checkpoint-')) for f in hub.repository('tester/run').files if f.startswith(f'{stage}/checkpoints/')})


def test_a_machine_that_wakes_up_late_erases_nothing(hub, tmp_path):
    "Guard: a machine at step 3 removed checkpoints 10 and 20 of another one, and a fresh machine began at 3."
    good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); [train(store, n) for n in (1, 2)]'))
    good(python(hub, tmp_path, 'store = Store("b", hub="tester/run"); print(store.checkpoint("sft").name); [train(store, n) for n in (10, 20)]'))
    assert steps(hub) == [10, 20]   # 1 and 2 are of the same line
    before = dict(hub.repository('tester/run').files)
    late = good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); train(store, 3, 999); print("trained")'))
    assert late.stdout == 'trained\n' and hub.repository('tester/run').files == before
    assert 'another machine has reached step 20: go on from there with --resume' in late.stderr
    again = good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); print(store.checkpoint("sft").name); train(store, 30)'))
    assert again.stdout == 'checkpoint-20\n' and steps(hub) == [20, 30]


def test_a_finished_stage_of_a_late_machine_is_not_pushed_over_a_newer_one(hub, tmp_path):
    "Guard: the adapter of a machine that had come to step 3 replaced that of step 20."
    good(python(hub, tmp_path, 'store = Store("b", hub="tester/run"); train(store, 20); finished(store).push("sft", base="0123456789ab")'))
    before = dict(hub.repository('tester/run').files)
    late = good(python(hub, tmp_path, 'shutil.copy("b/config.json", "c.json"); Path("a").mkdir(); shutil.copy("c.json", "a/config.json"); store = Store("a", hub="tester/run"); train(store, 3); finished(store).push("sft")'))
    assert hub.repository('tester/run').files == before and late.stderr.count('another machine has reached step 20') >= 1
    same = good(python(hub, tmp_path, 'store = Store("c", hub="tester/run"); store.require("sft", "adapter_config.json"); store.push("sft"); store.finish()'))
    assert 'not pushed' not in same.stderr   # what is there already may be pushed again


@pytest.mark.parametrize('faster, pushed', [('README.md', True), ('sft/checkpoints/checkpoint-20/manifest.json', False)])
def test_a_push_that_somebody_else_overtakes_is_decided_anew(hub, tmp_path, faster, pushed):
    "Guard: a push named no parent commit, so what came between reading and writing was not seen."
    good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); train(store, 1)'))
    repository, between = hub.repository('tester/run'), []
    def overtake(method, path):
        if '/commit/' in path and not between: between.append(repository.commit('faster', repository.files | {faster: b'{}'}))
    hub.refuse = overtake
    done = good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); train(store, 3); store.hub.finish()'))
    assert between and repository.files[faster] == b'{}'
    assert ('sft/checkpoints/checkpoint-3/manifest.json' in repository.files) == pushed
    assert ('another machine has reached step 20' in done.stderr) != pushed
    assert [status for _, path, status in hub.log if '/commit/' in path].count(412) == 1


def test_a_repository_that_moves_on_for_ever_is_given_up(hub, tmp_path):
    "Guard: deciding anew has an end."
    good(python(hub, tmp_path, 'Store("a", hub="tester/run")'))
    repository = hub.repository('tester/run')
    hub.refuse = lambda method, path: '/commit/' in path and repository.commit('faster', repository.files | {'README.md': str(len(repository.commits)).encode()}) and None
    done = good(python(hub, tmp_path, 'Hub.tries = 3; store = Store("a", hub="tester/run"); train(store, 1); print("trained")'))
    assert done.stdout == 'trained\n' and 'not pushed to tester/run (HTTP 412)' in done.stderr


def test_two_machines_at_once_remove_only_what_is_their_own(tmp_path):
    "Guard: each push removed whatever it did not keep itself."
    hub = loopback.serve(failing=.1, seed=1)
    good(python(hub, tmp_path, 'Hub.tries = 30; Store("a", hub="tester/run")'))
    for machine in 'bc':
        (tmp_path/machine).mkdir()
        (tmp_path/machine/'config.json').write_bytes((tmp_path/'a/config.json').read_bytes())
    code = 'Hub.tries = 30; store = Store(sys.argv[1], hub="tester/run"); [(train(store, n, int(sys.argv[2])), time.sleep(.05)) for n in range(1, 7)]'
    env = os.environ | loopback.client(hub, tmp_path) | {'PYTHONPATH': str(ROOT)}
    both = [subprocess.Popen([sys.executable, '-c', BEGIN + code, name, size], env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True, encoding='utf-8') for name, size in (('b', '500'), ('c', '700'))]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = {}
    lost = []
    commits = hub.repository('tester/run').commits
    for (_, before), (title, after) in zip(commits, commits[1:]):
        weights = lambda files: {f: len(d) for f, d in files.items() if f.endswith('adapter_model.safetensors')}
        pushed = weights(after).get(f'{title}/adapter_model.safetensors')
        lost += [(title, f) for f, size in weights(before).items() if weights(after).get(f) != size and size != pushed]
        found |= weights(after)
    assert not lost and len(found) >= 3
    assert max(steps(hub)) == 6
    hub.shutdown()


def test_a_public_repository_is_refused_unless_it_is_said(hub, tmp_path):
    "Guard: an existing public repository was used without a word, and the run was everybody's to read."
    hub.repositories['model', 'tester/run'] = loopback.Repository(False)
    before = dict(hub.repository('tester/run').files)
    done = good(python(hub, tmp_path, 'try: Store("a", hub="tester/run")\nexcept UserError as e: print(e)'))
    assert done.stdout.startswith('tester/run is public') and '--public' in done.stdout and hub.repository('tester/run').files == before
    good(python(hub, tmp_path, 'store = Store("b", hub="tester/run", public=True); train(store, 1)'))
    assert steps(hub) == [1]
    good(python(hub, tmp_path, 'Store("c", hub="tester/new", public=True)'))
    assert hub.repository('tester/new').private


def test_a_repository_that_becomes_public_gets_no_more(hub, tmp_path):
    "Guard: who can read was asked once, at the start."
    good(python(hub, tmp_path, 'Store("a", hub="tester/run")'))
    opened = []
    def open_it(method, path):
        if '/preupload/' in path: opened.append(setattr(hub.repository('tester/run'), 'private', False))
    hub.refuse = open_it
    done = good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); train(store, 1); store.hub.finish(); train(store, 2); store.hub.finish()'))
    assert opened and steps(hub) == [1] and 'tester/run is public' in done.stderr


def test_the_command_line_says_public(monkeypatch, tmp_path):
    "Guard: `--public` reaches the store."
    from thinkact_nb import cli, options
    asked = []
    monkeypatch.setattr(options, 'Store', lambda *words, **named: asked.append(named))
    for words in (['data', '--hub', 'a/b'], ['data', '--hub', 'a/b', '--public']): cli.parse(words).store()
    assert [named['public'] for named in asked] == [False, True]


def test_a_dataset_is_pushed_with_its_card_and_opens_without_this_library(hub, tmp_path):
    pushed = good(python(hub, tmp_path, '''
from thinkact_nb import data
from thinkact_nb.pool import SimPool
from thinkact_nb.share import push_to_hub
data.make_dataset(3, "d", SimPool(0), image_size=64)
print(push_to_hub("d", "tester/tabletop"))'''))
    repository = hub.repository('tester/tabletop', 'dataset')
    assert repository.private and set(repository.files) == {'README.md', 'made.json', 'train.parquet', 'sample.png'} and 'hf_good' not in pushed.stdout + pushed.stderr
    opened = subprocess.run([sys.executable, '-c', '''
import sys, datasets
rows = datasets.load_dataset("tester/tabletop", split="train")
print(len(rows), rows[0]["image"].size, rows[0]["output"][:7], "thinkact_nb" in sys.modules)'''], env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | loopback.client(hub, tmp_path/'other'), text=True, capture_output=True, cwd=tmp_path, encoding='utf-8')
    assert good(opened).stdout.split() == ['3', '(64,', '64)', '<think>', 'False']
    already = len(hub.log)
    streamed = good(python(hub, tmp_path/'other', '''
from thinkact_nb import data, env, sft
from thinkact_nb.share import stream_dataset
rows = [[(row["instruction"], row["output"], row["image"].size) for row in stream_dataset("tester/tabletop", seed)] for seed in (0, 0, 1)]
own = data.read_dataset("../d/train.parquet")
print(rows[0] == rows[1], sorted(rows[0]) == sorted(rows[2]) == sorted((row["instruction"], row["output"], row["image"].size) for row in own))
trainer = sft.make_trainer(Store("run", get_profile("tiny")), steps=2, validation=1, stream="tester/tabletop")
trainer.args.eval_steps, trainer.args.save_steps = 9, 2
print(trainer.train().global_step)
trainer.model.save_pretrained("adapter")'''))
    asked = {path for _, path, _ in hub.log[already:] if 'tester/tabletop' not in path}
    assert not asked, 'PEFT asked the Hub for the base at every checkpoint, which offline took minutes or failed (huggingface/peft#1452)'
    assert streamed.stdout.split() == ['True', 'True', '2']
    missing = python(hub, tmp_path, 'from thinkact_nb.share import stream_dataset; stream_dataset("tester/nothing")')
    assert 'UserError: cannot stream tester/nothing' in missing.stderr
    refused = python(hub, tmp_path, 'from thinkact_nb.share import push_to_hub; push_to_hub("d", "somebody/tabletop")')
    assert 'UserError: cannot push to somebody/tabletop' in refused.stderr
    hub.repositories['dataset', 'tester/open'] = loopback.Repository(False)
    refused = python(hub, tmp_path, 'from thinkact_nb.share import push_to_hub; push_to_hub("d", "tester/open")')
    assert 'UserError: tester/open is public, so everybody could read' in refused.stderr and not hub.repository('tester/open', 'dataset').files
    good(python(hub, tmp_path, 'from thinkact_nb.share import push_to_hub; push_to_hub("d", "tester/open", private=False)'))
    assert 'train.parquet' in hub.repository('tester/open', 'dataset').files
