"""A policy to play with: choose a scene, read the think with its claims coloured by their truth, edit it, and watch the arm.
`make space` runs it; Hugging Face runs it as a Gradio Space. tests/test_space.py presses its buttons without Gradio."""
import math
import os
import tempfile
from pathlib import Path

import gradio as gr
from safetensors import safe_open
from thinkact_nb import evaluate
from thinkact_nb.language import think_of
from thinkact_nb.env import PROFILES, UserError, split_of
from thinkact_nb.pictures import film, told
from thinkact_nb.pool import FPS, SimPool, write_video
from thinkact_nb.sim import LEVELS, make_scene
from thinkact_nb.store import PACKAGE, Store
from thinkact_nb.tasks import TASKS
from thinkact_nb.think import think_in
from thinkact_nb.world import World

RUN, HUB = os.environ.get('THINKACT_RUN', ''), os.environ.get('THINKACT_HUB')
STORE = Store(RUN or tempfile.mkdtemp(), None if RUN else PROFILES['tiny'], hub=HUB, shipped=True)
POLICIES = {'rejection sampling': 'rft', 'PPO': 'ppo', 'SFT': 'sft'}
PICTURE, FILM = 384, 320  # pixels per side
COLOURS = {'true': '#2e9e5b', 'false': '#d64545'}
POOL = SimPool(0)
# here the policy's own think fails, and with an expert's in its place the same policy succeeds: a test holds it to that,
# and `python tools/check_space.py --scenes` lists others when the adapters of the package are other ones
OPENS = dict(task='relative', level='L0', seed=30_000_029)


def who():
    "What acts here, in a sentence; the stand-in's parameters are counted in the head of its weights."
    ours = '[thinkact_nb](https://github.com/thinkact-nb/thinkact_nb)'
    if STORE.profile.model != 'standin': return f'The policy is {STORE.profile.model} with an adapter of {ours}.'
    with safe_open(PACKAGE/'standin'/'model.safetensors', 'np') as weights:
        count = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())
    return f'The policy is the {count/1e6:.1f}-million-parameter stand-in of {ours}, not Gemma.'


def scene_of(task, level, seed):
    try:
        split_of(int(seed or 0))
        return make_scene(task, level, int(seed or 0))
    except UserError as e: raise gr.Error(str(e))


def look(task, level, seed):
    "A scene's picture and instruction; what was thought and done before goes."
    scene = scene_of(task, level, seed)
    world = World()
    picture = world.reset(scene).render(PICTURE)
    world.close()
    return picture, scene.instruction, [], '', '', '', None


def claimed(think, scene): return [(text, None if true is None else str(true).lower()) for text, true in told(think, scene)]


def write(policy, scene, start=None):
    "What the policy writes, and what comes of it: a row of the episode table."
    rows = evaluate.act(STORE, POLICIES[policy], [scene], POOL, starts=start and [start])
    return rows.to_dict('records')[0]


def filmed(scene, row):
    "The episode as a film, and how it ended."
    world = World()
    frames, end = film(scene, row['output'], world, FILM, rings=True)
    world.close()
    file = Path(tempfile.mkdtemp())/'episode.mp4'
    write_video(frames + frames[-1:]*FPS, file)
    return end, str(file)


def think(policy, task, level, seed):
    "The policy's own think and action, acted out."
    scene = scene_of(task, level, seed)
    row = write(policy, scene)
    end, file = filmed(scene, row)
    said = think_in(row['output'])
    return claimed(said, scene), said, row['action'] or f"none: {row['reason']}", end, file


def act_on(policy, task, level, seed, said):
    "The action that the policy finishes after the think that stands in the box."
    scene = scene_of(task, level, seed)
    for tag in ('<think>', '</think>', '<action>', '</action>'): said = said.replace(tag, '')
    row = write(policy, scene, f'<think>{said.strip()}</think><action>')
    end, file = filmed(scene, row)
    return claimed(said, scene), row['action'] or f"none: {row['reason']}", end, file


def truth(task, level, seed): return think_of(scene_of(task, level, seed))


with gr.Blocks(title='Watch a robot think') as app:
    gr.Markdown(f"# Watch a robot think\n{who()} Physics by PyBullet.\n\n"
                "It opens on a scene that the stand-in fails by its own think (*Think and act*) and solves by another: *Put in an expert's think*, then *Act on this think*.")
    with gr.Row():
        task = gr.Dropdown(list(TASKS), value=OPENS['task'], label='task')
        level = gr.Dropdown([(f'{name}: {about}', name) for name, about in LEVELS.items()], value=OPENS['level'], label='level')
        seed = gr.Number(OPENS['seed'], label='scene', precision=0, minimum=0)
        policy = gr.Dropdown(list(POLICIES), value='rejection sampling', label='policy')
    with gr.Row():
        with gr.Column():
            instruction = gr.Textbox(label='instruction', interactive=False)
            picture = gr.Image(label='what the policy sees', height=PICTURE, interactive=False)
            ask = gr.Button('Think and act', variant='primary', elem_id='ask')
        with gr.Column():
            shown = gr.HighlightedText(label='the think: claims true (green) and false (red)', color_map=COLOURS, elem_id='claims', show_legend=True)
            box = gr.Textbox(label='edit the think', lines=4, elem_id='think')
            with gr.Row():
                again = gr.Button('Act on this think', elem_id='again')
                honest = gr.Button("Put in an expert's think", elem_id='honest')
            action = gr.Textbox(label='action', interactive=False, elem_id='action')
            end = gr.Textbox(label='outcome', interactive=False, elem_id='end')
            video = gr.Video(label='the arm; a ring is a place that the think names: right (green), not right (red)', autoplay=True, height=FILM, elem_id='film')

    place, one = [task, level, seed], dict(concurrency_id='robot', concurrency_limit=1)
    for choice in place: choice.change(look, place, [picture, instruction, shown, box, action, end, video], **one)
    app.load(look, place, [picture, instruction, shown, box, action, end, video], **one)
    ask.click(think, [policy, *place], [shown, box, action, end, video], **one)
    again.click(act_on, [policy, *place, box], [shown, action, end, video], **one)
    honest.click(truth, place, box, **one)

if __name__ == '__main__': app.launch(server_name=os.environ.get('GRADIO_SERVER_NAME', '127.0.0.1'), show_error=True)
