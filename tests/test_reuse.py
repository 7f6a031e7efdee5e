"Kinds of fault that public bug reports showed us: names that are not unique, readers that are too kind, paths that libraries read otherwise, and work that is taken for what it is not."
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
from thinkact_nb import cli, data, language, options, turns
from thinkact_nb.env import UserError, get_profile, say
from thinkact_nb.files import file_stem, located, read_seal
from thinkact_nb.pool import SimPool
from thinkact_nb.share import stream_dataset, to_files, to_lerobot
from thinkact_nb.store import SHIPPED, Store

ODD = 'lr=0.1 [1] *?{a}%20#&\'q\'"$H";:@,~한'  # what one library or another reads as a pattern, a format, an address or a list


@pytest.fixture(scope='module')
def few(tmp_path_factory):
    "Nine demonstrations, one of each task."
    data.make_dataset(9, folder := tmp_path_factory.mktemp('few'), SimPool(0), image_size=64)
    return folder


@pytest.fixture(scope='module')
def some_turns(tmp_path_factory):
    return turns.make_turns(4, tmp_path_factory.mktemp('turns'), SimPool(0), tasks=('put_on',), image_size=64)


def changed(few, folder, change):
    "The demonstrations after a change of their rows, in a folder of a run."
    rows = pq.read_table(few/'train.parquet').to_pylist()
    change(rows)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(few/'train.parquet')), folder/'train.parquet')
    return folder/'train.parquet'


def encoded(image, kind, **how):
    image.save(out := io.BytesIO(), kind, **how)
    return out.getvalue()


# names

def test_every_row_of_an_export_has_a_picture_of_its_own(some_turns, few, tmp_path):
    "Guard: turns of one episode share task, level and seed, so 36 of 53 lines named a picture of another moment."
    for name, file, plain in (('turns', some_turns, False), ('rows', few/'train.parquet', False), ('bare', few/'train.parquet', True)):
        rows = data.read_dataset(file)
        if plain: rows = rows.select_columns(['image', 'instruction', 'output'])  # from elsewhere: no scene
        lines = [json.loads(line) for line in to_files(rows, tmp_path/name).read_text(encoding='utf-8').splitlines()]
        assert len({line['image_path'] for line in lines}) == len(lines) == len(rows)
        for line, row in zip(lines, rows):
            assert (line['instruction'], line['output']) == (row['instruction'], row['output'])
            assert Image.open(tmp_path/name/line['image_path']).tobytes() == row['image'].tobytes()
    with pytest.raises(UserError, match='is not empty'): to_files(rows, tmp_path/'bare')


def test_lerobot_says_which_rows_it_takes(some_turns, few, tmp_path):
    "Guard: each turn was played alone from the table as it was laid; rows without a scene were a traceback."
    with pytest.raises(UserError, match='these are turns.*to_files'): to_lerobot(data.read_dataset(some_turns), tmp_path/'a', SimPool(0))
    rows = data.read_dataset(few/'train.parquet')
    with pytest.raises(UserError, match='have no task.*to_files'): to_lerobot(rows.select_columns(['image', 'instruction', 'output']), tmp_path/'a', SimPool(0))
    with pytest.raises(UserError, match='no demonstration succeeded'): to_lerobot(rows.map(lambda row: dict(success=False)), tmp_path/'a', SimPool(0))
    with pytest.raises(UserError, match='a stream'): to_lerobot(rows.to_iterable_dataset(), tmp_path/'a', SimPool(0))
    assert not (tmp_path/'a').exists()


def test_turns_have_a_card_that_says_so(some_turns):
    "Guard: a folder of turns had no card and no picture, so that `push_to_hub` sent them without."
    said = (some_turns.parent/'README.md').read_text(encoding='utf-8')
    rows = pq.read_table(some_turns)
    assert f'{len(rows)} turns, of 4 episodes' in said and 'make_turns(4' in said
    assert (some_turns.parent/'sample.png').read_bytes() == rows['image'][0].as_py()['bytes']


def test_a_film_is_called_after_all_that_makes_it(tmp_path):
    "Guard: the film of one policy took the place of another's, and that of four turns the place of one look."
    for arm in ('expert', 'random'): cli.main(['act', '--task', 'put_on', '--seed', '7', '--arm', arm, '--run', str(tmp_path/'run')])
    for more in (['--turns', '2'], ['--disturb', 'slip'], ['--turns', '2', '--disturb', 'slip']):
        cli.main(['act', '--task', 'put_on', '--seed', '7', '--arm', 'expert', '--run', str(tmp_path/'run'), *more])
    made = sorted(f.name for f in (tmp_path/'run'/'act').glob('*.mp4'))
    assert made == [f'put_on-L0-7-{rest}.mp4' for rest in ('expert-2_turns', 'expert-slip-2_turns', 'expert-slip', 'expert', 'random')], made
    arms = ['sft:first 25 %', 'sft:first 75 %', 'mine b', 'mine_b', 'mine/b', 'a-b', 'a_b', '../x', '한', '글']
    assert len({file_stem('L0', arm) for arm in arms}) == len(arms) and not any('/' in file_stem(arm) for arm in arms)  # cvat#8076


def test_a_table_with_disturbed_scenes_shows_the_plain_one(tmp_path, capsys):
    "Guard: of rows that share task, level and seed the first was shown, disturbed or not."
    row = pd.read_parquet(SHIPPED/'eval'/'episodes.parquet').iloc[[0]]
    pd.concat([row.assign(perturbed='camera'), row]).to_parquet(tmp_path/'both.parquet', index=False)
    cli.main(['act', '--table', str(tmp_path/'both.parquet'), '--task', row.task.item(), '--level', row.level.item(), '--seed', str(row.seed.item()), '--run', str(tmp_path/'run')])
    assert [f.stem for f in (tmp_path/'run'/'act').glob('*.mp4')] == [f'{row.task.item()}-{row.level.item()}-{row.seed.item()}-{row.arm.item()}']


# readers

def grey16(width=64): return encoded(Image.fromarray(np.full((width, width), 40_000, np.uint16)), 'png')
def cut_jpeg(): return (lambda whole: whole[:len(whole)//2])(encoded(Image.effect_noise((64, 64), 90).convert('RGB'), 'jpeg'))
def put(row, **values): return lambda rows: rows[row].update(values)
def drawn(content): return put(2, image=dict(bytes=content, path=None))


SPOILED = {  # change of row 2: its reason
    'half a JPEG': (drawn(cut_jpeg()), 'has no image that can be read'),
    'half a PNG': (lambda rows: rows[2]['image'].update(bytes=rows[2]['image']['bytes'][:-500]), 'has no image that can be read'),
    'sixteen bits': (drawn(grey16()), 'more than eight bits'),
    'a bomb': (drawn(encoded(Image.new('1', (14_000, 14_000)), 'png')), 'has no image that can be read'),
    'no bytes': (drawn(None), 'has no image that can be read'),
    'an image token in the instruction': (put(2, instruction='Describe <image_soft_token> first.'), 'holds <image_soft_token>'),
    'an image token in the output': (lambda rows: rows[2].update(output=rows[2]['output'].replace('<think>', '<think><image_soft_token>')), 'holds <image_soft_token>'),
    'the end of the turn': (put(2, instruction='Ignore that.<end_of_turn>'), 'holds <end_of_turn>'),
    'sound': (put(2, instruction='Listen: <audio_soft_token>'), 'holds <audio_soft_token>'),
    'far too long': (put(2, instruction='Please ' * 3000), 'tokens with its image, and 1024 fit')}


@pytest.mark.parametrize('case', SPOILED)
def test_a_row_that_training_cannot_read_is_left_out_with_its_reason(few, tmp_path, case, capsys):
    "Guard: half a JPEG, a text that asks for an image and one of 9,009 tokens passed, `strict` too, and ended or stalled the training."
    from thinkact_nb.family import texts_fit
    change, said = SPOILED[case]
    say.cache_clear()
    file, fits = changed(few, tmp_path, change), texts_fit(get_profile('tiny'))
    assert len(data.read_dataset(file, fits=fits)) == 8
    told = capsys.readouterr().err
    assert told.count('\n') == 1 and '1 of 9 rows left out: row 2 ' in told and said in told, told
    with pytest.raises(UserError, match='row 2 '): data.read_dataset(file, strict=True, fits=fits)


@pytest.mark.parametrize('how', ['turned', 'grey', 'cmyk', 'clear', 'one pixel high'])
def test_a_picture_of_another_form_is_still_taken(few, tmp_path, how):
    "Guard: a reader that is too strict loses what a model reads well; a stream turned no picture upright."
    image, exif = Image.effect_noise((64, 32), 60).convert('RGB'), Image.Exif()
    exif[0x0112] = 6
    contents = {'turned': lambda: encoded(image, 'jpeg', exif=exif), 'grey': lambda: encoded(image.convert('L'), 'png'), 'cmyk': lambda: encoded(image.convert('CMYK'), 'jpeg'),
                'clear': lambda: encoded(image.convert('RGBA'), 'png'), 'one pixel high': lambda: encoded(image.resize((64, 1)), 'png')}
    file = changed(few, tmp_path, drawn(contents[how]()))
    rows = data.read_dataset(file, strict=True)
    assert len(rows) == 9 and data.picture(contents[how]()).mode == 'RGB'
    assert data.picture(contents[how]()).size == rows[2]['image'].size == ((32, 64) if how == 'turned' else (64, 1) if how == 'one pixel high' else (64, 32))
    assert to_files(rows, tmp_path/'files').exists()


def test_a_stream_leaves_out_what_a_file_leaves_out(few, some_turns, tmp_path, capsys):
    "Guard: the same rows, by the other reader; a stream without one usable row ended a training at step 0 without a word."
    from thinkact_nb.family import texts_fit
    fits = texts_fit(get_profile('tiny'))
    def spoil(rows):
        rows[0]['image'] = dict(bytes=cut_jpeg(), path=None)
        rows[1]['instruction'] = 'See <image_soft_token>'
        rows[2]['image'] = dict(bytes=grey16(), path=None)
    changed(few, tmp_path/'mixed', spoil)
    rows = list(stream_dataset(str(tmp_path/'mixed'), fits=fits))
    told = capsys.readouterr().err
    assert len(rows) == 6 and {row['image'].mode for row in rows} == {'RGB'}
    for reason in ('no image that can be read', 'holds <image_soft_token>', 'more than eight bits'): assert reason in told
    changed(few, tmp_path/'none', lambda rows: [row.update(instruction='') for row in rows])
    with pytest.raises(UserError, match='no row that can be used: one has no instruction'): stream_dataset(str(tmp_path/'none'))
    with pytest.raises(UserError, match='holds turns'): stream_dataset(str(some_turns.parent))


def test_sft_trains_on_what_is_left(few, tmp_path):
    "Guard: the first step that drew such a row was a traceback."
    from thinkact_nb.sft import make_trainer
    store = Store(tmp_path/'run', get_profile('tiny'))
    changed(few, store.begin('data'), lambda rows: (rows[0]['image'].update(bytes=cut_jpeg()), rows[1].update(instruction='See <image_soft_token>'), rows[2].update(instruction='Please ' * 3000)))
    store.push('data')
    assert len(make_trainer(store, steps=1, validation=2).train_dataset) == 6


# paths

def test_any_name_of_a_run_folder_serves_every_library(tmp_path, monkeypatch, capsys):
    "Guard: `datasets` read [1] as a pattern after all demonstrations were made, Optuna {a} as a format, SQLite ? and # as parts of an address."
    from thinkact_nb.tune import Study, check_database
    monkeypatch.chdir(tmp_path)
    cli.main(['data', '--n', '2', '--tasks', 'put_on', '--profile', 'tiny', '--run', ODD])
    cli.main(['export', '--to', 'files', '--out', f'{ODD}/files', '--run', ODD])
    assert len(data.read_dataset(Path(ODD)/'data'/'train.parquet', strict=True)) == 2  # pyarrow takes lr=0.1 for a column
    cli.main(['eval', '--arms', 'expert', 'random', '--n', '2', '--tasks', 'put_on', '--run', ODD])
    cli.main(['report', '--run', ODD, '--no-video'])
    study = Study(Store(ODD), scenes=2)
    assert (study.folder/'study.db').stat().st_size and len(study.table()) == 0
    check_database(study.folder/'study.db')
    assert sorted(f.name for f in tmp_path.iterdir()) == [ODD]  # nothing went elsewhere
    assert f'demonstrations in {ODD}/data' in capsys.readouterr().out  # as it was given
    with pytest.raises(UserError, match="run `thinkact sft --run 'lr=0.1"): Store(ODD).require('sft', 'adapter_config.json')


def test_a_tilde_is_home(tmp_path, monkeypatch):
    "Guard: `--run=~/x`, which no shell expands, made a folder called ~ (pytorch-lightning#19059)."
    monkeypatch.setenv('HOME', str(tmp_path/'home'))
    monkeypatch.chdir(tmp_path)
    assert Store('~/run', get_profile('tiny')).run == tmp_path/'home'/'run'
    assert located('~odd') == tmp_path/'~odd' and [f.name for f in tmp_path.iterdir()] == ['home']


def test_a_name_that_is_no_text_is_refused_before_the_work(tmp_path):
    for name in ('run\udcff', 'run\0'):
        with pytest.raises(UserError, match='choose another'): Store(tmp_path/name, get_profile('tiny'))
    assert not list(tmp_path.iterdir())


def test_a_comma_in_the_folder_of_an_arm_is_no_end(tmp_path, monkeypatch):
    "Guard: what lists split by commas cannot be given with one."
    (tmp_path/'a,b').mkdir()
    monkeypatch.chdir(tmp_path)
    assert options.listed(('sft,mine=a,b', )) == ['sft', 'mine=a', 'b']  # two arms and a slip, as before
    assert options.listed(('sft', 'mine=a,b', 'ppo,base')) == ['sft', 'mine=a,b', 'ppo', 'base']
    (tmp_path/'t:x.py').write_text('', encoding='utf-8')
    with pytest.raises(UserError, match='stands between two files'): options.use('t:x.py')


def test_a_store_means_the_folder_where_it_was_made(tmp_path, monkeypatch):
    "Guard: after a `%cd` a second, empty run was sealed elsewhere, and not a word was said."
    (tmp_path/'one').mkdir()
    (tmp_path/'two').mkdir()
    monkeypatch.chdir(tmp_path/'one')
    store = Store('run', get_profile('tiny'))
    (store.begin('data')/'train.parquet').write_bytes(b'rows')
    monkeypatch.chdir(tmp_path/'two')
    store.push('data')
    assert list(read_seal(tmp_path/'one'/'run'/'data')['files']) == ['train.parquet'] and not list((tmp_path/'two').iterdir())
    data.make_dataset(1, 'made', Elsewhere(tmp_path/'one'), image_size=32)
    assert (tmp_path/'two'/'made'/'train.parquet').exists() and not (tmp_path/'one'/'made').exists()


class Elsewhere(SimPool):
    "Changes the working folder while it works."
    def __init__(self, folder):
        super().__init__(0)
        self.folder = folder
    def map(self, *args, **kwargs): os.chdir(self.folder); return super().map(*args, **kwargs)


# what is kept, and what it was made from and with

SMALL = dict(sft_batch=4, sft_micro_batch=2, max_new_tokens=8, rl_batch=8, rl_micro_batch=4)
SET = ['--set', *(f'{name}={value}' for name, value in SMALL.items())]


def refused(words, capsys):
    "The one line that a command is refused with."
    with pytest.raises(SystemExit) as stop: cli.main(words)
    err = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and err[-1].startswith('thinkact: '), err
    return err[-1]


def test_finished_demonstrations_are_taken_only_for_what_they_are(tmp_path, capsys):
    "Guard: `data --n 27 --resume` where 18 are said that they are complete."
    words = ['data', '--n', '2', '--tasks', 'put_on', '--profile', 'tiny', '--run', str(tmp_path/'run')]
    cli.main(words)
    before = (tmp_path/'run/data/train.parquet').read_bytes()
    for more, said in ((['--n', '4'], 'n 2, not 4'), (['--tasks', 'stack'], "tasks ['put_on'], not ['stack']"), (['--levels', 'L1'], "levels ['L0'], not ['L1']"), (['--seed', '5'], 'seed 0, not 5'),
                       (['--lang', 'ko'], 'lang en, not ko'), (['--turns'], 'turns False, not True'), (['--set', 'image_size=64'], 'image_size 128, not 64')):
        line = refused([*words, '--resume', *more], capsys)
        assert 'made with ' in line and said in line and 'leave out --resume' in line, line
    cli.main([*words, '--resume'])
    assert 'complete, skipped\n' in capsys.readouterr().out
    cli.main([w for w in words if w not in ('--n', '2')] + ['--resume'])  # nobody asks for a number
    (tmp_path/'run/data/made.json').unlink()                              # of a version before this one
    Store(tmp_path/'run').begin('data')
    Store(tmp_path/'run').push('data')
    cli.main([*words, '--resume', '--n', '4'])
    assert 'does not say what it was made with' in capsys.readouterr().out
    assert (tmp_path/'run/data/train.parquet').read_bytes() == before


def test_another_wording_is_another_language(tmp_path, monkeypatch, capsys):
    "Guard: demonstrations of a former wording were taken for those of this one, finished or begun."
    words = ['data', '--n', '2', '--tasks', 'put_on', '--profile', 'tiny', '--run', str(tmp_path/'run')]
    cli.main(words)
    monkeypatch.setitem(language.ENGLISH, 'put', tuple(f'{said} Now.' for said in language.ENGLISH['put']))
    assert 'language ' in refused([*words, '--resume'], capsys)


def test_parts_of_other_rows_are_put_away_with_a_word(tmp_path, monkeypatch, capsys):
    "Guard: parts that were begun by a former wording were finished by this one; and a note that broke off was a traceback."
    monkeypatch.setattr(data, 'PART', 1)
    class Stopping(SimPool):
        def map(self, *args):
            self.limit -= 1
            if self.limit < 0: raise KeyboardInterrupt
            return super().map(*args[:2])
    with pytest.raises(KeyboardInterrupt): data.make_dataset(2, tmp_path/'a', Stopping(0, limit=1), image_size=32)
    monkeypatch.setitem(language.ENGLISH, 'put', tuple(f'{said} Now.' for said in language.ENGLISH['put']))
    made = data.make_dataset(2, tmp_path/'a', SimPool(0), image_size=32)
    assert all('Now.' in text for text in made['output']) and 'was begun with language' in capsys.readouterr().err
    (tmp_path/'b/parts').mkdir(parents=True)
    (tmp_path/'b/parts/asked.json').write_text('{"n": 2, "tas', encoding='utf-8')
    with pytest.raises(UserError, match='asked.json .it is not JSON, or breaks off.: remove .*parts'): data.make_dataset(2, tmp_path/'b', SimPool(0))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A run with an SFT adapter of one step, an RL adapter of one update, and a table of both."
    run = tmp_path_factory.mktemp('trained')/'run'
    cli.main(['data', '--n', '4', '--tasks', 'put_on', '--profile', 'tiny', '--run', str(run)])
    cli.main(['sft', '--steps', '1', '--run', str(run), *SET])
    cli.main(['ppo', '--updates', '1', '--tasks', 'put_on', '--run', str(run), *SET])
    cli.main(['eval', '--arms', 'expert', 'sft', 'ppo', '--tasks', 'put_on', '--n', '2', '--run', str(run), *SET])
    return run


@pytest.fixture
def run(trained, tmp_path): return Path(shutil.copytree(trained, tmp_path/'run'))


def test_every_stage_says_what_it_was_made_from_and_with(trained):
    "Guard: an adapter of RL did not know which SFT it began from."
    from thinkact_nb.files import sha256
    from thinkact_nb.model import fingerprint
    store = Store(trained)
    rows, sft, rl = (store.made(stage) for stage in ('data', 'sft', 'rl/ppo'))
    assert (rows['n'], rows['lang'], rows['turns'], len(rows['language'])) == (4, 'en', False, 12)
    assert sft['demonstrations'] == sha256(trained/'data/train.parquet')[:12] and (sft['steps'], sft['sft_batch'], sft['seed']) == (1, 4, 0)
    assert rl['sft'] == fingerprint(store.profile, trained/'sft') and (rl['updates'], rl['rl_batch'], rl['tasks'], rl['lam']) == (1, 8, ['put_on'], 1.)
    assert store.made('eval')['decoding'] == 'greedy, 8 tokens, 128 px' and rl['base'] == sft['base'] == fingerprint(store.profile)
    saved = read_seal(store.checkpoints('rl/ppo')[-1])['settings']
    assert saved.items() <= rl.items() and set(rl) - set(saved) == {'updates'}


def test_a_finished_training_is_taken_only_for_what_it_is(run, capsys):
    "Guard: another number of steps, rate, seed, data or SFT was taken for done; more updates too."
    sft, ppo = (['sft', '--steps', '1', '--run', str(run), '--resume'], ['ppo', '--updates', '1', '--tasks', 'put_on', '--run', str(run), '--resume'])
    for words in (sft, ppo):
        cli.main([*words, *SET])
        assert 'complete, skipped\n' in capsys.readouterr().out
    for words, said in (([*sft, *SET, '--steps', '2'], 'steps 1, not 2'), ([*sft, *SET, 'sft_learning_rate=0.5'], 'sft_learning_rate 0.005, not 0.5'), ([*sft, *SET, 'weight_decay=0.5'], 'numbers {}, not'),
                        ([*sft, *SET, '--seed', '1'], 'seed 0, not 1'), ([*ppo, *SET, 'lam=0.5'], 'numbers {}, not'), ([*ppo, *SET, '--safety', '1'], 'weights '), ([*ppo, *SET, '--levels', 'L1'], 'levels ')):
        assert said in refused(words, capsys)
    Store(run).begin('data')
    data.make_dataset(4, run/'data', SimPool(0), ('put_on',), seed=50)
    Store(run).push('data')
    assert 'demonstrations ' in refused([*sft, *SET], capsys)
    say.cache_clear()
    assert Store(run).has('sft') and 'SFT adapter in' in capsys.readouterr().err  # as a notebook asks
    cli.main(['sft', '--steps', '3', '--run', str(run), *SET])  # the first step has rate 0
    assert 'sft ' in refused([*ppo, *SET], capsys)


def test_more_updates_go_on(run, capsys):
    "Guard: `max_steps` of a finished training was ignored."
    cli.main(['ppo', '--updates', '2', '--tasks', 'put_on', '--run', str(run), '--resume', *SET])
    assert 'of 1 updates: going on to 2' in capsys.readouterr().out and len(json.loads((run/'rl/ppo/log.json').read_text(encoding='utf-8'))) == 2
    assert Store(run).made('rl/ppo')['updates'] == 2


def test_rows_of_another_decoding_are_made_again(run, capsys):
    "Guard: `eval --resume` with other settings kept the texts of the former ones."
    words = ['eval', '--arms', 'expert', 'sft', '--tasks', 'put_on', '--n', '2', '--run', str(run), '--resume', *SET]
    table = lambda: pd.read_parquet(run/'eval/episodes.parquet')
    before = (run/'eval/episodes.parquet').read_bytes()
    cli.main(words)
    assert (run/'eval/episodes.parquet').read_bytes() == before
    cli.main([*words, 'max_new_tokens=5'])
    assert "other decoding 'greedy, 8 tokens, 128 px'" in capsys.readouterr().err
    assert dict(table().groupby('arm').decoding.unique().map(list)) == dict(expert=['greedy, 5 tokens, 128 px'], sft=['greedy, 5 tokens, 128 px'], ppo=['greedy, 8 tokens, 128 px'])
    for arm, column, value in (('sft', 'version', '0.0.1'), ('sft', 'instruction', 'Do it.'), ('expert', 'output', '<think></think>'), ('sft', 'decoding', 'greedy, 5 tokens, 128 px, egl')):
        rows = table()
        rows.loc[rows.arm == arm, column] = value
        rows.to_parquet(run/'eval/episodes.parquet', index=False)
        cli.main([*words, 'max_new_tokens=5'])
        assert value not in set(table()[column]), column


def test_a_report_is_of_the_adapters_that_are_there(run, capsys):
    "Guard: a report counted rows of adapters that had been trained anew since, and a new SFT against the RL of an old one."
    cli.main(['sft', '--steps', '3', '--run', str(run), *SET])
    line = refused(['report', '--no-video', '--run', str(run)], capsys)
    assert 'sft in the episode table was written by the weights' in line and 'thinkact eval' in line
    cli.main(['eval', '--arms', 'sft', 'ppo', '--tasks', 'put_on', '--n', '2', '--run', str(run), '--resume', *SET])
    cli.main(['report', '--no-video', '--run', str(run)])
    found = json.loads((run/'report/report.json').read_text(encoding='utf-8'))
    assert not [c for c in found['comparisons'] if c['b'] == 'ppo'] and 'ppo began from the SFT adapter' in found['headline'] and found['departures'][0] in capsys.readouterr().err
    rows = pd.read_parquet(run/'eval/episodes.parquet')
    rows.loc[rows.index[-1], 'decoding'] = 'sampled'
    rows.to_parquet(run/'eval/episodes.parquet', index=False)
    Store(run).begin('eval')
    Store(run).push('eval')
    assert 'a mean over both says nothing' in refused(['report', '--no-video', '--run', str(run)], capsys)


def test_no_rate_is_over_disturbed_and_plain_scenes():
    from thinkact_nb.report import apart
    table = pd.DataFrame(dict(level=['L0', 'L0', 'L1'], perturbed=['', 'camera', 'light+camera']))
    assert apart(table).level.tolist() == ['L0', 'L0, camera', 'L1, light+camera']


def test_thinks_of_two_policies_are_no_intervention():
    "Guard: an arm's own thinks and other ones were compared whatever weights had written them."
    from thinkact_nb import think
    base = pd.DataFrame(dict(task='put_on', level='L0', perturbed='', seed=[1, 2], sample=0, success=True, weights='a', decoding='g', version='0'))
    rows = pd.concat([base.assign(arm=f'{arm}:{kind}', weights=f'{arm}{kind == "none" and arm == "sft"}') for arm in ('sft', 'ppo') for kind in ('own', 'none')])
    with pytest.raises(UserError, match="'sft' have the weights"): think.interaction(rows, 'sft', 'ppo')


def test_a_study_goes_on_with_what_it_began_from(run):
    "Guard: trials on other demonstrations, or from another SFT adapter, were compared with those before."
    from thinkact_nb.tune import Study
    Study(Store(run), 'sft', scenes=2)
    Study(Store(run), 'sft', scenes=2)
    data.make_dataset(4, Store(run).begin('data'), SimPool(0), ('put_on',), seed=50)
    Store(run).push('data')
    with pytest.raises(UserError, match='began with source'): Study(Store(run), 'sft', scenes=2)


def test_validation_asks_in_the_language_that_was_learned(tmp_path):
    "Guard: an SFT on Korean was validated, stopped early and its best checkpoint chosen by scenes asked about in English."
    from thinkact_nb.sft import make_trainer
    store = Store(tmp_path/'run', get_profile('tiny'))
    data.make_dataset(2, store.begin('data'), SimPool(0), ('put_on',), lang='ko')
    store.push('data')
    looks = make_trainer(store, steps=1, validation=2).validation
    assert all(re.search('[가-힣]', asked) for asked in looks.demonstrations['instruction'])
