"The bookkeeping of tools/soak.py: what counts as lost, as torn and as unequal; against the real store, and with everything spoiled in turn."
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'tests'), str(ROOT/'tools')]
import soak
from test_hub import good, python

TRAIN = 'store = Store("{0}", hub="tester/run"); store.checkpoint("sft"); [train(store, n) for n in {1}]; store.finish()'


@pytest.fixture(scope='module')
def commits(tmp_path_factory):
    "Two machines, one after the other: each goes on from where the other was."
    hub, home = soak.loopback.serve(), tmp_path_factory.mktemp('machines')
    for machine, steps in (('a', (1, 2, 3)), ('b', (4, 5)), ('a', (6, 7))): good(python(hub, home, TRAIN.format(machine, steps)))
    hub.shutdown()
    return hub.repository('tester/run').commits


def test_what_the_store_lets_go_is_not_lost(commits):
    "Guard: the rule that the soak applies is the store's own."
    assert soak.losses(commits) == soak.torn(commits) == []
    folders = [set(soak.sealed(files)) for _, files in commits]
    assert any(before - after for before, after in zip(folders, folders[1:])) and 'sft/checkpoints/checkpoint-7' in folders[-1]


def without(files, folder): return {path: data for path, data in files.items() if not path.startswith(f'{folder}/')}


def test_a_checkpoint_that_goes_against_the_rule_is_lost(commits):
    "Guard: the newest, the one before it, the best, one of another line, and any that goes with a push of something else."
    (title, files) = commits[-1]
    assert title == 'sft/checkpoints/checkpoint-7'
    for step in (6, 7):
        gone = f'sft/checkpoints/checkpoint-{step}'
        assert soak.losses([*commits, ('data', without(files, gone))]) == [f'{gone} went when data was pushed']
    before = commits[-2][1]
    kept_one = 'sft/checkpoints/checkpoint-6'
    assert soak.losses([('', before), (title, without(files, kept_one))]) == [f'{kept_one} went when {title} was pushed']
    other = {'sft/checkpoints/checkpoint-1/manifest.json': b'{"files": {}}'}  # not in the line of 7: another's
    assert soak.losses([('', before | other), (title, files)]) == ['sft/checkpoints/checkpoint-1 went when sft/checkpoints/checkpoint-7 was pushed']
    manifest = json.loads(files[f'{title}/manifest.json'])
    name, content = 'checkpoint-5', b'{"files": {}}'
    line = manifest['line'] | {name: soak.loopback.object_id(content)}
    older = {f'sft/checkpoints/{name}/manifest.json': content}
    for best, lost in ((name, 1), ('checkpoint-7', 0)):
        after = without(files, f'sft/checkpoints/{name}') | {f'{title}/manifest.json': json.dumps(manifest | dict(line=line, best=best)).encode()}
        assert len(soak.losses([('', without(before, f'sft/checkpoints/{name}') | older), (title, after)])) == lost
    assert soak.losses([*commits, ('x', files | {f'{title}/manifest.json': b'{"files": {"a": 1}}'})]) == [f'{title} was changed when x was pushed']
    finished = files | {'sft/manifest.json': b'{"files": {}}'}
    assert soak.losses([('', finished), ('data', files)]) == ['sft went when data was pushed']


def test_a_file_that_is_not_what_was_sealed_is_torn(commits):
    "Guard: a commit that lacks a file, or has half of it."
    title, files = commits[-1]
    weights = f'{title}/adapter_model.safetensors'
    for spoiled in ({k: v for k, v in files.items() if k != weights}, files | {weights: files[weights][:10]}):
        assert set(soak.torn([*commits[:-1], (title, spoiled)])) == {f'{weights} is not what its manifest says'}


def test_one_bit_is_unequal(commits):
    "Guard: a comparison that finds nothing, or compares nothing, would pass an hour of anything."
    found = soak.weights(commits)
    assert {folder for folder, _ in found} == {f'sft/checkpoints/checkpoint-{n}' for n in range(1, 8)}
    assert soak.differing(found, found) == (7, [])
    title, files = commits[-1]
    weights = f'{title}/adapter_model.safetensors'
    flipped = files | {weights: bytes([files[weights][0] ^ 1]) + files[weights][1:]}
    n, wrong = soak.differing(soak.weights([*commits, (title, flipped)]), found)
    assert n == 8 and wrong == [f"{weights} differs from the twin's"]
    twin = {key: value for key, value in found.items() if key[0] != title}
    assert soak.differing(found, twin)[1] == [f"{weights} differs from the twin's"]
    fifth = 'sft/checkpoints/checkpoint-5'   # asked for by a signal, at a step at which the twin saved none: nothing to compare, unlike one that the twin never came to
    assert soak.differing(found, {key: value for key, value in found.items() if key[0] != fifth}) == (6, [])


def test_rows_are_compared_to_the_last_digit_and_in_any_order(tmp_path):
    table = pd.DataFrame(dict(arm=['a', 'b'], grounding=[.1 + .2, None], success=[True, False]))
    file = lambda t: (t.to_parquet(tmp_path/'t.parquet'), soak.rows_of(tmp_path/'t.parquet'))[1]
    same = file(table)
    assert file(table.iloc[::-1]) == same
    assert file(table.assign(grounding=[.3, None])) != same and file(table.iloc[:1]) != same


def test_a_result_with_anything_wrong_is_not_good_and_is_written_down(commits, tmp_path):
    "Guard: exit status and table come from what was found."
    twin = soak.weights(commits)
    result = soak.Result(0)
    result.look(commits, [twin], twin)
    assert result.good and result.compared == 14 and result.commits == len(commits) - 1
    for spoil in (dict(lost=['x']), dict(unequal=['x']), dict(faults=['x'])): assert not soak.Result(0, **spoil).good
    result.look([*commits, ('data', {})], [], twin)
    assert len(result.lost) == 2 and not result.good
    result.rounds.update(sft=2, ppo=1)
    (page := tmp_path/'page.md').write_text('before\n<!-- soak -->\nformer\n<!-- end -->\nafter\n', encoding='utf-8')
    soak.keep(json.loads(json.dumps(vars(result) | dict(date='2026-01-01'))), page)
    said = page.read_text(encoding='utf-8')
    assert said.startswith('before\n<!-- soak -->\nLast run: 2026-01-01') and said.endswith('<!-- end -->\nafter\n') and 'former' not in said
    assert '| 2, 1, 0 |' in said and '| **lost** | 2 |' in said and '| **unequal** | 0 |' in said


def test_the_hub_cuts_the_connections_there_are(tmp_path):
    import http.client
    served = soak.Hub()
    soak.threading.Thread(target=served.serve_forever, daemon=True).start()
    client = http.client.HTTPConnection('127.0.0.1', served.server_port, timeout=30)
    client.request('GET', '/api/validate-yaml')
    assert client.getresponse().read() and served.cut() == 1
    with pytest.raises((http.client.HTTPException, OSError)):
        client.request('GET', '/api/validate-yaml')
        client.getresponse()
    served.shutdown()
