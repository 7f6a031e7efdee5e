"The closed loop: a world that stops between turns, mishaps, an expert that repairs, and any text at all."
import json
import random

import numpy as np
import pandas as pd
import pytest

from thinkact_nb.env import PROFILES, SPLITS, UserError
from thinkact_nb.language import expert
from thinkact_nb.data import read_dataset
from thinkact_nb.evaluate import paired
from thinkact_nb.loop import (DISTURBANCES, Felt, LoopWorld, budget, carry_after, changed_since, expert_turn, memory, next_carry, play, replay,
                              turn_claims)
from thinkact_nb.pool import SimPool
from thinkact_nb.sim import NO_PROGRAM, Program, loc_text, make_scene, parse_output, parse_turn, render_output, scene_of, solve
from thinkact_nb.reward import with_mishaps
from thinkact_nb.tasks import spread
from thinkact_nb.turns import REPORTED, LoopEnv, loop_episodes, make_turns, noticed, open_turn, run_loop, turn_rows
from thinkact_nb.world import World

TINY = PROFILES['tiny']
DONE = '<think></think><action>done</action>'
SCENES = spread(9, seed=40)


@pytest.fixture(scope='module')
def world():
    made = LoopWorld()
    yield made
    made.close()


@pytest.fixture(scope='module')
def repaired():
    "The expert in nine scenes, one of each task, under each mishap: {mishap: [Played]}"
    return {name: [play((s, name, expert_turn, budget(s), 0)) for s in SCENES] for name in ('', *DISTURBANCES)}


def test_done_is_a_program_of_no_steps_to_the_loop_alone():
    assert parse_turn(DONE).program == Program(()) and parse_output(DONE).program is None
    for text in (None, 3, '', 'done', '<action>done</action>', '<think></think><action>done;</action>', '<think></think><action>done done</action>'):
        assert parse_turn(text) == parse_output(text) and parse_turn(text).program is None


def test_a_turn_is_the_run_that_we_know(world):
    plain = World()
    for scene in SCENES:
        assert world.reset(scene).take(expert(scene)) == plain.reset(scene).run(solve(scene))
        assert world.take(DONE).success
    plain.close()


def test_exact_replay(world, repaired):
    "The same scene and texts give the same bits, whatever ran before, in another process too."
    for name, played in repaired.items():
        for scene, one in list(zip(SCENES, played))[::3]:
            texts = [text for _, text in one.turns]
            for k, (look, _) in enumerate(one.turns):
                seen, _ = replay((scene, name, texts[:k], 0))
                assert (seen.asked, seen.poses, seen.now, seen.felt) == (look.asked, look.poses, look.now, look.felt)
            assert replay((scene, name, texts, 0))[1] == one.outcome
    jobs = [(scene, 'slip', [text for _, text in one.turns[:1]], 64) for scene, one in zip(SCENES, repaired['slip'])]
    with SimPool(1) as pool: elsewhere = pool.map(replay, jobs)
    for (look, outcome), (seen, other) in zip(elsewhere, map(replay, jobs)):
        assert outcome == other and look.poses == seen.poses and (look.image == seen.image).all()


def test_a_look_changes_nothing(world):
    scene, ends = SCENES[1], []
    for size in (0, 64):
        world.reset(scene, 'push')
        for _ in range(2):
            world.look(size)
            end = world.take(expert(scene))
        ends.append(end)
    assert ends[0] == ends[1]


@pytest.mark.parametrize('name', DISTURBANCES)
def test_every_mishap_changes_what_comes_of_one_look_and_is_the_same_again(world, name):
    solved = 0
    for scene in SCENES:
        calm, struck = (world.reset(scene, which).take(expert(scene)) for which in ('', name))
        assert calm.success and struck.poses != calm.poses
        assert world.reset(scene, name).take(expert(scene)) == struck
        solved += struck.success
    assert solved <= 3  # a block may fall where it was to go


def test_an_unknown_mishap_is_refused(world):
    for call in (lambda: world.reset(SCENES[0], 'quake'), lambda: run_loop('expert', SCENES[:1], SimPool(0), TINY, disturb='quake'),
                 lambda: make_turns(1, '/tmp', SimPool(0), disturb=('quake',)), lambda: LoopEnv(disturb='quake')):
        with pytest.raises(UserError, match='quake'): call()


def test_the_expert_repairs_and_says_only_what_is_true(repaired):
    for name, played in repaired.items():
        assert sum(p.outcome.success for p in played) >= (9 if not name else 8)
        for one in played:
            for look, text in one.turns:
                assert all(true for *_, true in turn_claims(parse_turn(text).think, look)), text
            if one.outcome.success: assert one.ended == 'done' and one.turns[-1][1].endswith('<action>done</action>')


def test_the_expert_notices_each_kind(repaired):
    kinds = dict(slip='slipped', push='moved', miss='missed')
    for name, kind in kinds.items():
        happened = [changed_since(one.turns[1][0]) for one in repaired[name]]
        assert sum(any(k == kind for k, _ in found) for found in happened) >= 8
        for one in repaired[name]:
            told = noticed(one)
            assert told['noticed'] == told['truly'] == told['mishaps'] and not told['alarms']
    assert not any(noticed(one)['mishaps'] for one in repaired[''])


def test_a_mishap_that_is_made_up_is_no_truth(repaired):
    one = repaired['miss'][0]
    look, other = one.turns[1][0], next(b.name for b in SCENES[0].bodies if b.name != SCENES[0].bodies[SCENES[0].moves[0][0]].name)
    says = lambda think: noticed(one._replace(turns=[(look, render_output(think, 'done'))]))
    assert says(f'I do not grasp the {other}.') == dict(mishaps=1, noticed=1, truly=0, alarms=0)
    assert says('I see it.') == dict(mishaps=1, noticed=0, truly=0, alarms=0)
    calm = one._replace(turns=[(one.turns[0][0], render_output(f'I do not grasp the {other}.', 'done'))])
    assert noticed(calm) == dict(mishaps=0, noticed=0, truly=0, alarms=1)


def test_each_carry_of_a_swap_has_its_goal_in_the_memory_whatever_happens():
    "Guard: where the second block belongs cannot be seen once the first lies there; after a mishap the last step no longer told it."
    carries = 0
    for scene in (make_scene('swap', 'L0', SPLITS['validation'] + k) for k in range(3)):
        for name in ('', *DISTURBANCES):
            for look, text in play((scene, name, expert_turn, budget(scene), 0)).turns:
                carry, told = next_carry(look), turn_claims(parse_turn(text).think, look)
                assert all(claim.true for claim in told)
                if not carry: continue
                carries += 1
                assert not look.turn or loc_text(*carry[1]) in look.asked
                after = carry_after(look, *carry)
                said = [claim.text for claim in told if claim.kind == 'then']
                assert said == ([f'the {look.now.bodies[after[0]].name} goes to {loc_text(*after[1])}'] if after else [])
                for claim in said:
                    for false in (claim.replace(look.now.bodies[after[0]].name, look.now.bodies[carry[0]].name), claim[:-14] + '<loc00><loc00>'):
                        assert [c.true for c in turn_claims(false, look) if c.kind == 'then'] == [False]
    assert carries >= 36


def test_false_claims_of_a_turn_are_found(repaired):
    look = repaired['miss'][0].turns[1][0]
    block = look.scene.bodies[look.scene.moves[0][0]].name
    other = next(b.name for b in look.scene.bodies if b.name != block)
    said = {f'{block} is out of the grasp': False, f'not grasp the {other}': False, f'{block} is not where it was': False,
            'it is done': False, f'not grasp the {block}': True, 'It is not done': True}
    think = f'The {block} is out of the grasp. I do not grasp the {other}. The {block} is not where it was. So it is done. I do not grasp the {block}. It is not done.'
    assert {claim.text: claim.true for claim in turn_claims(think, look)} == said


def texts_of_a_liar(rng):
    pieces = ['<think>', '</think>', '<action>', '</action>', 'pick ', 'place ', 'via ', '<loc12>', '<loc63>', ';', '\n', 'é', '\0', '\ud800', '<image_soft_token>',
              '<end_of_turn>', 'done', '<loc99>', '.' * 3000]
    whole = [DONE.replace('done', 'done; done'), '', 'done', '<think>x</think><action>pick <loc63><loc63>; place <loc00><loc00></action>',
             '<think>a. <eos><image_soft_token> é</think><action>pick <loc30><loc30></action>', '<think></think><action>place <loc20><loc32></action>',
             '<think></think><action>' + 'via <loc20><loc32>;' * 16 + '</action>']
    return rng.choice([rng.choice(whole), ''.join(rng.choices(pieces, k=rng.randint(1, 14)))])


def test_hostile_texts_cost_a_turn_and_nothing_else():
    rng, asked = random.Random(0), []

    def liar(image, question):
        asked.append(question)
        return texts_of_a_liar(rng)

    for name in DISTURBANCES:
        table = run_loop(liar, SCENES, SimPool(0), TINY, disturb=name)
        assert not (table.ended == 'crashed').any() and (table.turns <= [budget(s) for s in SCENES]).all()
        json.loads(table.texts[0])
    assert all(q.isascii() and q.isprintable() and len(q) < 1000 for q in asked)
    assert not any(word in q for q in asked for word in ('image', 'eos', 'end_of', 'action'))


def test_memory_is_one_line_that_cannot_hold_a_tag():
    assert memory('', Felt()) == 'Last: Nothing.'
    assert memory('I see. Put <loc01> <im<loc03>age><unused3 here', Felt((), True)) == 'Last: Put <loc01> age> hit.'
    assert len(memory('x' * 5000, Felt())) < 200


def test_done_ends_and_turns_run_out(world):
    scene, sorts = SCENES[0], make_scene('sort', 'L0', 40)
    carries = len(solve(sorts).steps) // 2
    assert (budget(scene), budget(sorts), budget(sorts, 1)) == (4, 3 + carries, 1) and carries > 1
    quitter = loop_episodes(lambda image, question: DONE, [scene], SimPool(0), TINY)[0]
    assert (quitter.ended, len(quitter.turns), quitter.outcome.success) == ('done', 1, False)
    talker = loop_episodes(lambda image, question: 'hm', [scene], SimPool(0), TINY)[0]
    assert (talker.ended, len(talker.turns), talker.outcome) == ('out of turns', budget(scene), NO_PROGRAM)
    once = loop_episodes('open', [scene], SimPool(0), TINY, turns=1)[0]
    assert (once.ended, len(once.turns), once.outcome.success) == ('out of turns', 1, True)


def test_a_hand_that_missed_is_open_at_the_next_turn(world):
    scene = make_scene('put_on', 'L0', 3)
    pick, place = solve(scene).steps
    world.reset(scene, 'miss').take(render_output('', Program((pick,))))
    assert world.felt.steps[0][1] == 'Nothing'
    world.take(render_output('', Program((pick,))))
    assert world.felt.steps[0][1] == 'holds'
    world.take(render_output('', Program((place,))))
    assert world.felt.steps[0][1] == 'set' and world.take(DONE).success


def test_the_environment():
    env = LoopEnv('put_on', disturb='miss')
    seen, info = env.reset(options=dict(seed=5))
    again, _ = env.reset(options=dict(seed=5))
    assert info == dict(scene_seed=5) and (seen['image'] == again['image']).all() and env.observation_space.contains(seen)
    rewards = []
    for _ in range(4): rewards.append(env.step('\ud800 no')[1:4])
    assert rewards == [(0., False, False)] * 3 + [(-1., False, True)]
    env.reset(options=dict(seed=5))
    ends = [env.step(expert_turn(env.world.look()))[1:4] for _ in range(3)]
    assert ends == [(0., False, False), (0., False, False), (1., True, False)]
    env.close()


def test_turns_are_a_dataset_that_is_read_and_goes_on(tmp_path, monkeypatch):
    import thinkact_nb.turns as turns
    monkeypatch.setattr(turns, 'EPISODES', 2)
    whole = turns.make_turns(4, tmp_path/'whole', SimPool(0), image_size=64)
    rows = read_dataset(whole, strict=True)
    assert any(text.endswith('<action>done</action>') for text in rows['output']) and all(parse_turn(text).program is not None for text in rows['output'])
    calls, make = [], turn_rows

    def dies(job):
        calls.append(job)
        if len(calls) == 3: raise KeyboardInterrupt
        return make(job)

    monkeypatch.setattr(turns, 'turn_rows', dies)
    with pytest.raises(KeyboardInterrupt): turns.make_turns(4, tmp_path/'cut', SimPool(0), image_size=64)
    assert turns.make_turns(4, tmp_path/'cut', SimPool(0), image_size=64).read_bytes() == whole.read_bytes()
    assert len(calls) == 5  # two, one that was cut short, and the last two


def test_arms_meet_the_same_mishap_and_are_compared():
    table = [run_loop(who, SCENES[:4], SimPool(0), TINY, looks, 'push', arm=arm) for who, looks, arm in (('open', 1, 'open'), ('expert', 4, 'closed'))]
    first = [json.loads(t.texts[0])[0].partition('<action>')[0] for t in table]
    assert first[0] == first[1] and list(table[0].mishap) == list(table[1].mishap) == ['push'] * 4
    assert table[0].success.sum() < table[1].success.sum() and set(REPORTED) == {'slipped', 'missed', 'moved'}
    assert np.isnan(table[0].grounding).sum() == 0 and open_turn(play((SCENES[0], '', open_turn, 1, 0)).turns[0][0]) == expert(SCENES[0])


@pytest.mark.parametrize('perturb', [(), ('light',)])
def test_scenes_come_back_from_a_table_of_mishaps(perturb):
    "Guard: the mishap stood in `perturbed`, and no scene could be made of the row; tables of before are read all the same."
    scenes = spread(2, seed=40, perturb=perturb)
    table = run_loop('open', scenes, SimPool(0), TINY, 1, ['push', ''], arm='open')
    assert table.mishap.tolist() == ['push', ''] and set(table.perturbed) == {'+'.join(perturb)}
    before = table.assign(perturbed=['+'.join((*perturb, 'push')), '+'.join(perturb)]).drop(columns='mishap')
    for rows in (table, before): assert [scene_of(row) for row in rows.to_dict('records')] == scenes
    columns = list(table)
    assert with_mishaps(before)[columns].equals(table) and with_mishaps(table).equals(table)
    both = paired(pd.concat([before, table.assign(arm='again')], ignore_index=True), 'open', 'again')
    assert both.mishap.tolist() == ['push', ''] and len(paired(table.assign(mishap='').pipe(lambda t: pd.concat([t, t.assign(arm='b')])), 'open', 'b')) == 2
    with pytest.raises(UserError, match='share 1'): paired(pd.concat([table, table.assign(arm='b', mishap='')]), 'open', 'b')


def test_the_command_line_teaches_turns_from_end_to_end(tmp_path, capsys):
    "data --turns, sft, ppo, act --turns; and an adapter says that it learned turns where the demonstrations are gone."
    import shutil
    from thinkact_nb.cli import main
    from thinkact_nb.turns import turn_policy
    from thinkact_nb.store import TURNS_FILE, Store
    run = ['--run', str(tmp_path / 'run')]
    few = ['--set', 'rl_batch=8,rl_micro_batch=4,max_new_tokens=24,sft_batch=8,sft_micro_batch=8']
    main(['data', *run, '--profile', 'tiny', '--turns', '--n', '8', *few])
    main(['sft', *run, '--steps', '2', '--every', '2', *few])
    main(['ppo', *run, '--updates', '1', *few])
    assert '1 updates' in capsys.readouterr().out
    store = Store(tmp_path / 'run')
    table = store.run / 'rl/ppo/rollouts.parquet'
    import pandas as pd
    assert pd.read_parquet(table).groupby('seed')['sample'].max().max() > 0 and (store.run / 'sft' / TURNS_FILE).exists()
    shutil.rmtree(store.run / 'data')
    assert turn_policy('ppo', store).remembers
    main(['act', *run, '--task', 'put_on', '--seed', '3', '--turns', '2', '--disturb', 'push'])
    assert 'turn 2' in capsys.readouterr().out
    with pytest.raises(SystemExit): main(['ppo', *run, '--algo', 'grpo', '--updates', '1', *few])
    assert capsys.readouterr().err == 'thinkact: --algo grpo: this run learned turns, which take ppo\n'
