"What comes from elsewhere is believed only as far as it was checked: names, links, configurations, adapters; and what the disk refuses is said."
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
import hub as loopback
from test_hub import good, hub, python  # noqa: F401, a fixture
from thinkact_nb.checkpoints import Store
from thinkact_nb.env import PROFILES, UserError, get_profile
from thinkact_nb.files import damage, disk_fault, read_seal, whole, write_json
from thinkact_nb.store import SHIPPED, foreign

TINY = asdict(PROFILES['tiny'])


def plant(hub, step, contents=(), repo='tester/run', **manifest):
    "A checkpoint that somebody put into a repository."
    repository = hub.repository(repo)
    inside = f'sft/checkpoints/checkpoint-{step}/'
    saved = {}
    there = dict(repository.files)
    for name, content in dict(contents).items():
        there[inside + name] = content
        saved[name] = dict(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    there[inside + 'manifest.json'] = json.dumps(dict(files=saved, score=None, best=f'checkpoint-{step}', settings={}) | manifest).encode()
    repository.commit('planted', there)


EACH = """
import contextlib, io
def each(n, work):
    "What each case says: by a result or a `UserError`, and on stderr."
    said = []
    for i in range(n):
        say.cache_clear()
        with contextlib.redirect_stderr(io.StringIO()) as err:
            try: out = work(i)
            except UserError as e: out = "UserError: " + one_line(e)
            except Exception as e: out = f"{type(e).__name__}: {e}"
        said.append([str(out), err.getvalue()])
    print(json.dumps(said))
"""


def copies(hub, n):
    "As many repositories like tester/run: tester/case0, tester/case1, …"
    for i in range(n):
        hub.repositories['model', f'tester/case{i}'] = repository = loopback.Repository(True)
        repository.commit('copied', dict(hub.repository('tester/run').files))
        yield i, f'tester/case{i}', repository


def begun(hub, tmp_path):
    "A repository with one good checkpoint, at step 1."
    good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); train(store, 1)'))


def all_files(folder): return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob('*') if f.is_file()}


CHECKPOINT = 'each(N, lambda i: Store(f"b{i}", hub=f"tester/case{i}").checkpoint("sft").name)'


def test_a_manifest_cannot_name_a_folder_to_be_removed(hub, tmp_path):
    'Guard: with "best": "/some/folder" in a manifest, `sft --resume` deleted that folder.'
    begun(hub, tmp_path)
    (victim := tmp_path/'victim').mkdir()
    (victim/'thesis.txt').write_text('all of it', encoding='utf-8')
    bests = [str(victim), '../../../../victim', 'checkpoint-1/../../../../victim', r'..\..\victim', 'C:/victim', '', 'checkpoint-1\n', 'checkpoint-007', 5, None, ['checkpoint-1']]
    for i, repo, _ in copies(hub, len(bests)): plant(hub, 9, {'adapter_model.safetensors': b'9'}, repo, best=bests[i])
    said = json.loads(good(python(hub, tmp_path, EACH + f'N = {len(bests)}\n' + CHECKPOINT)).stdout)
    assert (victim/'thesis.txt').read_text(encoding='utf-8') == 'all of it'
    for best, (out, err) in zip(bests, said):
        assert out == 'checkpoint-1' and err.count('\n') == 1 and 'checkpoint-9 has a manifest.json that is not believed' in err, (best, out, err)
    assert not list(tmp_path.glob('b*/sft/checkpoints/checkpoint-9'))


NAMES = ['../escaped.json', '../../escaped.json', r'..\..\escaped.json', '/tmp/escaped.json', 'sub/escaped.json', 'c:escaped.json', r'c:\escaped.json', '.escaped.json', 'nul.json', 'Com1.json',
         'escaped.json\n', 'escaped.json.', ' escaped.json', 'esc*.json', '\u0435scaped.json', 'escaped\x1b[2J.json', '', 'x' * 300 + '.json', 'Manifest.json']


def test_a_file_name_in_a_manifest_is_a_name(hub, tmp_path):
    "Guard: one rule for both slashes and every system; a name with a backslash was a traceback."
    begun(hub, tmp_path)
    for i, repo, _ in copies(hub, len(NAMES)):
        plant(hub, 9, {'adapter_model.safetensors': b'9'}, repo, files={NAMES[i]: dict(size=1, sha256=hashlib.sha256(b'9').hexdigest())})
    said = json.loads(good(python(hub, tmp_path, EACH + f'N = {len(NAMES)}\n' + CHECKPOINT)).stdout)
    for name, (out, err) in zip(NAMES, said):
        assert out == 'checkpoint-1' and 'checkpoint-9 has a manifest.json that is not believed' in err, (name, out, err)
        assert err.count('\n') == 1 and '\x1b' not in err, (name, err)
    assert not list(tmp_path.rglob('*escaped*'))


@pytest.mark.parametrize('manifest', [b'', b'[', b'[]', b'5', b'null', b'{}', b'{"files": []}', b'{"files": {"a.json": 5}}', b'{"files": {"a.json": {"size": "1", "sha256": ""}}}',
                                      b'{"files": {"a.json": {"size": 1}}}', b'{"files": {}, "score": NaN}', b'{"files": {}, "score": "high"}', b'{"files": {}, "settings": []}', b'{"files": {}, "line": {"x": "y"}}',
                                      b'{"files": {"a.json": {"size": 1, "sha256": ""}, "A.json": {"size": 1, "sha256": ""}}}', b'{"files": {}, "evil": 1}', b'\xff\xfe', b'[' * 100_000], ids=lambda m: ascii(m[:40]))
def test_a_manifest_of_any_shape_is_one_line(tmp_path, manifest):
    "Guard: eight malformed manifests were eight tracebacks. No folder is removed for having one: it is put aside."
    store = Store(tmp_path/'run', get_profile('tiny'))
    (folder := store.run/'sft/checkpoints/checkpoint-9').mkdir(parents=True)
    (folder/'manifest.json').write_bytes(manifest)
    (folder/'work.json').write_text('{}', encoding='utf-8')
    assert read_seal(folder) is None
    assert '\n' not in damage(folder) and 'manifest.json' in damage(folder)
    assert store.checkpoint('sft') is None and store.checkpoints('sft') == []
    assert (folder.with_name('damaged-checkpoint-9')/'work.json').exists()


def test_odd_names_of_checkpoints_are_left_alone(hub, tmp_path):
    "Guard: four odd names of folders were four tracebacks."
    begun(hub, tmp_path)
    files = hub.repository('tester/run').files
    odd = ['checkpoint-x', 'checkpoint-', 'checkpoint-1e3', 'checkpoint-\u0663', 'checkpoint-5 copy', 'checkpoint--1', 'checkpoint-9999999999999999']
    for name in odd:
        files[f'sft/checkpoints/{name}/manifest.json'] = files['sft/checkpoints/checkpoint-1/manifest.json']
        (tmp_path/'b/sft/checkpoints'/name).mkdir(parents=True)
    (tmp_path/'b/config.json').write_bytes((tmp_path/'a/config.json').read_bytes())
    done = good(python(hub, tmp_path, 'store = Store("b", hub="tester/run"); print(store.checkpoint("sft").name); train(store, 2)'))
    assert done.stdout == 'checkpoint-1\n'
    for name in odd: assert (tmp_path/'b/sft/checkpoints'/name).is_dir() and f'sft/checkpoints/{name}/manifest.json' in hub.repository('tester/run').files


@pytest.mark.parametrize('where', ['outside', 'stage', 'run', 'link', 'dots'])
def test_nothing_outside_a_stage_is_removed_or_renamed(tmp_path, where):
    "Guard: the one function that removes looks where a folder really is."
    store = Store(tmp_path/'run', get_profile('tiny'))
    (checkpoints := store.path('sft')/'checkpoints').mkdir()
    (outside := tmp_path/'outside').mkdir()
    (outside/'thesis.txt').write_text('all of it', encoding='utf-8')
    (link := checkpoints/'checkpoint-5').symlink_to(outside)
    folder = dict(outside=outside, stage=store.path('sft'), run=store.run, link=link, dots=checkpoints/'..'/'..'/'..'/'outside')[where]
    before = all_files(tmp_path)
    for name in (None, 'damaged-checkpoint-5'):
        with pytest.raises(UserError, match='it was left alone'): store.away('sft', folder, name)
    assert all_files(tmp_path) == before and link.is_symlink()


def test_beginning_anew_takes_only_the_stage_s_own_checkpoints_away(tmp_path):
    "Guard: a training that began anew removed checkpoints by itself, without asking where they really are."
    store = Store(tmp_path/'run', get_profile('tiny'))
    store.anew('sft')   # nothing there, nothing to do
    (mine := store.path('sft')/'checkpoints'/'checkpoint-1').mkdir(parents=True)
    (store.path('sft')/'log.json').write_text('[]', encoding='utf-8')
    store.anew('sft')
    assert not mine.parent.exists() and (store.path('sft')/'log.json').exists()
    (outside := tmp_path/'outside').mkdir()
    (outside/'thesis.txt').write_text('all of it', encoding='utf-8')
    mine.parent.symlink_to(outside)
    with pytest.raises(UserError, match='it was left alone'): store.anew('sft')
    assert (outside/'thesis.txt').read_text(encoding='utf-8') == 'all of it'


def test_a_link_among_the_checkpoints_does_not_stop_a_training(tmp_path, capfd):
    "Guard: an old checkpoint that is a link is said and stays."
    store = Store(tmp_path/'run', get_profile('tiny'))
    elsewhere = tmp_path/'elsewhere'
    def train(step):
        (folder := store.path('sft')/f'checkpoints/checkpoint-{step}').mkdir(parents=True)
        (folder/'trainer_state.json').write_text('{}', encoding='utf-8')
        store.keep('sft', folder)
    train(1)
    (store.run/'sft/checkpoints/checkpoint-1').rename(elsewhere)
    (store.run/'sft/checkpoints/checkpoint-1').symlink_to(elsewhere)
    for step in (2, 3, 4): train(step)
    assert (elsewhere/'trainer_state.json').exists() and 'it was left alone' in capfd.readouterr().err
    assert [c.name for c in store.checkpoints('sft')] == ['checkpoint-1', 'checkpoint-3', 'checkpoint-4']


def test_a_configuration_from_the_hub_is_looked_at_first(hub, tmp_path):
    "Guard: types and the model of a profile were not checked, and the file was written before it was read."
    good(python(hub, tmp_path, 'Store("a", hub="tester/run")'))
    changes = [dict(model='evil/model'), dict(model='../../home'), dict(model='/etc'), dict(model=7), dict(dtype='load'), dict(dtype=None), dict(image_size='128'), dict(image_size=0), dict(image_size=10**30),
               dict(lora_rank=True), dict(sft_learning_rate=float('nan')), dict(name='\x1b[2J'), dict(name='tiny\n'), dict(sft_batch=-1), dict(extra=1)]
    for i, _, repository in copies(hub, len(changes)):
        config = json.loads(repository.files['config.json'])
        repository.files['config.json'] = json.dumps(config | dict(profile=config['profile'] | changes[i])).encode()
    said = json.loads(good(python(hub, tmp_path, EACH + f'each({len(changes)}, lambda i: Store(f"b{{i}}", hub=f"tester/case{{i}}"))')).stdout)
    for change, (out, _) in zip(changes, said): assert re.match(r'UserError: (.*config.json|tester/case\d+ is a run of the model)', out), (change, out)
    assert not list(tmp_path.glob('b*/config.json'))


def test_a_model_of_ones_own_is_taken_from_the_hub_when_it_is_named(hub, tmp_path):
    "Guard: refusing models that no profile names does not refuse those that the user gives."
    own = 'from dataclasses import replace; own = replace(get_profile("tiny"), model="me/gemma");'
    good(python(hub, tmp_path, own + 'Store("a", own, "tester/run")'))
    done = good(python(hub, tmp_path, own + 'print(Store("b", own, "tester/run").profile.model)'))
    assert done.stdout == 'me/gemma\n'


SLOW = '(([a-z._0-9]+)+)+!'


def test_an_adapter_configuration_is_compared_and_never_run(hub, tmp_path):
    "Guard: a `target_modules` that backtracks held a machine for more than a minute; of the base only the last part of its path was compared."
    good(python(hub, tmp_path, 'finished(Store("a", hub="tester/run")).push("sft")'))
    changes = [dict(target_modules=SLOW), dict(target_modules=['q_proj']), dict(exclude_modules=SLOW), dict(layers_pattern=[SLOW]), dict(rank_pattern={SLOW: 4}), dict(alpha_pattern={SLOW: 4}), dict(target_parameters=[SLOW]),
               dict(modules_to_save=['lm_head']), dict(auto_mapping=dict(base_model_class='x', parent_library='os')), dict(megatron_core='os'), dict(peft_type='IA3'), dict(unheard_of='x'), dict(r='16'), dict(r=10**9),
               dict(trainable_token_indices=[1]), dict(base_model_name_or_path='evil/standin'), dict(base_model_name_or_path=None)]
    for i, _, repository in copies(hub, len(changes)):
        planted = json.dumps(json.loads(repository.files['sft/adapter_config.json']) | changes[i]).encode()
        manifest = json.loads(repository.files['sft/manifest.json'])
        manifest['files']['adapter_config.json'] = dict(size=len(planted), sha256=hashlib.sha256(planted).hexdigest())
        repository.files.update({'sft/adapter_config.json': planted, 'sft/manifest.json': json.dumps(manifest).encode()})
    said = json.loads(good(python(hub, tmp_path, EACH + f'each({len(changes)}, lambda i: Store(f"b{{i}}", hub=f"tester/case{{i}}").require("sft", "adapter_config.json"))')).stdout)
    for change, (out, _) in zip(changes, said): assert re.match('UserError: .*(adapter_config.json|adapts evil/standin)', out), (change, out)


def test_every_way_to_an_adapter_compares_its_configuration(hub, tmp_path):
    "Guard: an arm given by folder or repository, and a checkpoint, come by other ways than a stage."
    from thinkact_nb.evaluate import adapter_of
    store = Store(tmp_path/'run', get_profile('tiny'))
    ours = json.loads((SHIPPED/'sft/adapter_config.json').read_text(encoding='utf-8'))
    (folder := tmp_path/'given').mkdir()
    (folder/'adapter_config.json').write_text(json.dumps(ours), encoding='utf-8')
    assert adapter_of(store, f'given={folder}') == str(folder)
    (folder/'adapter_config.json').write_text(json.dumps(ours | dict(target_modules=SLOW)), encoding='utf-8')
    with pytest.raises(UserError, match='target_modules'): adapter_of(store, f'given={folder}')
    begun(hub, tmp_path)
    hub.repository('tester/run').files['sft/adapter_config.json'] = (folder/'adapter_config.json').read_bytes()
    plant(hub, 9, {'adapter_config.json': (folder/'adapter_config.json').read_bytes()})
    plant(hub, 8, {'trainer_state.json': b'{"global_step": "8"}'})
    done = good(python(hub, tmp_path, '''
print(Store("b", hub="tester/run").checkpoint("sft").name)
from thinkact_nb.evaluate import adapter_of
try: adapter_of(Store("b"), "given=tester/run/sft")
except UserError as e: print(e)'''))
    assert done.stdout.startswith('checkpoint-1\n') and 'target_modules' in done.stdout
    assert 'checkpoint-9 has an adapter_config.json that is not' in done.stderr and 'checkpoint-8 has a trainer_state.json that no training wrote' in done.stderr


def test_what_this_project_writes_is_what_it_takes(tmp_path):
    "Guard: an adapter of today's PEFT passes, at another rank too, and one of the other base does not."
    from dataclasses import replace
    from peft import get_peft_model
    from thinkact_nb import model
    small = replace(get_profile('tiny'), lora_rank=4)
    base = model.load_base(small)
    get_peft_model(base, model.lora_config(small)).save_pretrained(tmp_path)
    assert foreign(tmp_path, small) is None
    assert 'adapts' in foreign(tmp_path, get_profile('t4'))


LIMIT = 'import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n'


def test_a_disk_that_takes_no_more_is_named_and_nothing_older_is_taken(hub, tmp_path):
    "Guard: a full disk was called a matter of the network, and the checkpoint before was trained on from."
    good(python(hub, tmp_path, 'store = Store("a", hub="tester/run"); train(store, 1); train(store, 2, 100_000)'))
    done = good(python(hub, tmp_path, 'store = Store("b", hub="tester/run")\n' + LIMIT + 'try: print(store.checkpoint("sft"))\nexcept UserError as e: print(e)'))
    assert 'File too large' in done.stdout and 'free some space' in done.stdout and 'network' not in done.stdout + done.stderr
    assert not list((tmp_path/'b').rglob('*.safetensors')) and not list((tmp_path/'b').glob('tmp*'))


def test_what_has_no_room_is_not_fetched(hub, tmp_path):
    "Guard: a manifest may name more than the disk has; that is said before anything comes."
    begun(hub, tmp_path)
    plant(hub, 9, files={'adapter_model.safetensors': dict(size=10**17, sha256='')})
    done = good(python(hub, tmp_path, 'try: print(Store("b", hub="tester/run").checkpoint("sft"))\nexcept UserError as e: print(e)'))
    assert 'takes 100000000000 MB and' in done.stdout and 'free some space' in done.stdout


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    "Guard: costs.json was opened, emptied, and then written."
    (file := tmp_path/'costs.json').write_text('{"sft": 1}', encoding='utf-8')
    (tmp_path/'.part-costs.json').symlink_to('/dev/full')
    with pytest.raises(OSError) as full: write_json(file, dict(sft=2))
    assert file.read_text(encoding='utf-8') == '{"sft": 1}' and 'No space left on device' in disk_fault(full.value)
    write_json(file, dict(sft=2))
    assert json.loads(file.read_text(encoding='utf-8')) == dict(sft=2) and [f.name for f in tmp_path.iterdir()] == ['costs.json']


def test_processes_that_write_one_file_do_not_take_each_others_part(tmp_path, monkeypatch):
    "Guard: SFT of two processes ended now and then, since both began the run folder at once."
    with whole(tmp_path/'costs.json') as part:
        part.write_text('{"sft": 1}', encoding='utf-8')
        monkeypatch.setenv('RANK', '1')
        monkeypatch.setenv('WORLD_SIZE', '2')
        write_json(tmp_path/'costs.json', dict(sft=2))
    assert json.loads((tmp_path/'costs.json').read_text(encoding='utf-8')) == dict(sft=1)


def test_what_another_process_began_stays(tmp_path):
    "Guard: whether a folder can be written to was seen by making, and removing, its config.json."
    store = Store(tmp_path/'run', get_profile('tiny'))
    found = store.config
    store._begin()
    assert store.config == found and [f.name for f in store.run.iterdir()] == ['config.json']


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    "Guard: a read-only folder was a traceback in a notebook."
    store = Store(tmp_path/'run', get_profile('tiny'))
    (store.run/'sft').write_text('a file where a folder should be', encoding='utf-8')
    for work in (store.path, store.begin):
        with pytest.raises(UserError, match='cannot use .*sft'): work('sft')
    code = f'import os; os.setgid(65534); os.setuid(65534)\nfrom pathlib import Path\nfrom thinkact_nb.env import *\nfrom thinkact_nb.files import *\nfrom thinkact_nb.hub import *\nfrom thinkact_nb.store import *\ntry: Store({str(tmp_path/"other")!r}, get_profile("tiny"))\nexcept UserError as e: print(e)'
    if os.getuid(): pytest.skip('only root can become somebody else')
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, '-c', 'import sys, thinkact_nb.store\n' + code], env=os.environ | {'PYTHONPATH': str(ROOT)}, text=True, capture_output=True, cwd='/', encoding='utf-8')
    assert re.search('cannot (use|write to) .*other.* .Permission denied.: choose another --run folder', done.stdout), done.stdout + done.stderr


def test_what_runs_is_recorded_and_not_where_the_user_stands(tmp_path, monkeypatch):
    "Guard: the commit of whatever repository the user stood in went into config.json."
    subprocess.run('git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x', shell=True, check=True, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    other = subprocess.run(['git', 'rev-parse', 'HEAD'], capture_output=True, text=True, encoding='utf-8').stdout.strip()
    found = json.loads(Store(tmp_path/'run', get_profile('tiny')).config)['commit']
    ours = subprocess.run(['git', 'rev-parse', 'HEAD'], capture_output=True, text=True, cwd=ROOT, encoding='utf-8')
    assert found != other and found == (ours.stdout.strip() if (ROOT/'.git').exists() else None)
