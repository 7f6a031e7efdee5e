"""Make the stand-in: a 3 M parameter Gemma 3n, pretrained on captions of simulator images.

    python tools/pretrain_standin.py --folder thinkact_nb/standin

It plays the pretrained base VLM where no Gemma fits. It learns to say what is on the table, how much of it, where and how
far apart, in every colour and shape there is, and to repeat text; which program an instruction asks for, and the form of
an output, are left to SFT. About an hour on two CPU cores; `pretraining.json` in the folder is the log."""
import itertools, json, re, time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
import numpy as np, torch, tyro
from torch import nn
from torch.nn import functional as F
from timm.models._efficientnet_builder import decode_arch_def
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from safetensors.torch import load_file
from transformers import (AutoProcessor, Gemma3nAudioFeatureExtractor, Gemma3nConfig, Gemma3nForConditionalGeneration, Gemma3nProcessor, Gemma3nTextConfig,
                          PreTrainedTokenizerFast, SiglipImageProcessor)
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nAudioConfig, Gemma3nVisionConfig
from thinkact_nb.env import SPLIT_SIZE, SPLITS
from thinkact_nb.data import ENGLISH, centimetres, counted, mention, think_of
from thinkact_nb.sim import BINS, COLOURS, KNOWN, LEVELS, MOVABLE, NEW, OUTER, SIZES, TASKS, Body, Scene, Table, World, make_scene, pad_distances, solve

VOCABULARY, SOFT_TOKENS, PIXELS, WIDTH, LAYERS, HEAD = 1152, 64, 128, 160, 4, 32
ARCHITECTURE = [["er_r1_k3_s2_e2_c24"], ["er_r1_k3_s2_e2_c48"], ["er_r1_k3_s2_e2_c96", "uir_r1_a5_k5_s1_e2_c96", "uir_r1_a5_k5_s1_e2_c96"]]
SPECIAL = ["<pad>", "<eos>", "<bos>", "<start_of_image>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_audio>"]
LANGUAGE = ["<think>", "</think>", "<action>", "</action>", "pick", "place", "via", *(f"<loc{i:02d}>" for i in range(BINS))]
TEMPLATE = """{{ bos_token }}{%- for message in messages -%}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- else -%}{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<image_soft_token>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- endif -%}{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""


def make_processor():
    "A tokenizer whose pieces are the words of the simulator, any other text falls to bytes; laid out like Gemma's."
    scenes = [make_scene(t, l, s) for t in TASKS for l in LEVELS for s in range(150)]
    corpus = [x for s in scenes for x in (s.instruction, think_of(s))] + [q for r in range(400) for q in questions(np.random.default_rng(r), scene_of(r, 8).bodies)] + [f" {n} cm" for n in range(100)] * 20 + ["user\n\n\n", "model\n"] * 500
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL + LANGUAGE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    core = Tokenizer.from_str(unspecial(json.loads(core.to_str())))
    unused = [f"<unused{i}>" for i in range(VOCABULARY - core.get_vocab_size())]
    core.add_tokens([AddedToken(t, special=False, normalized=False) for t in unused])
    core.add_special_tokens(["<end_of_image>", "<image_soft_token>", *(f"<image{i}>" for i in range(2, 16)), "<end_of_audio>", "<audio_soft_token>"])
    names = dict(image_token="<image_soft_token>", audio_token="<audio_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>",
                 boa_token="<start_of_audio>", eoa_token="<end_of_audio>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>",
                                        padding_side="left", extra_special_tokens=names)
    pictures = SiglipImageProcessor(size=dict(height=PIXELS, width=PIXELS), do_normalize=False, resample=2)
    return Gemma3nProcessor(Gemma3nAudioFeatureExtractor(), pictures, tokenizer, chat_template=TEMPLATE, image_seq_length=SOFT_TOKENS)


def unspecial(state):
    "The language's words are ordinary pieces: they must survive `skip_special_tokens`."
    for token in state["added_tokens"]: token["special"] = token["content"] not in LANGUAGE
    return json.dumps(state)


def make_model(tokenizer):
    "An untrained Gemma 3n of the stand-in's size."
    tower = lambda: dict(block_args=decode_arch_def(ARCHITECTURE), stem_size=16, msfa_indices=(3,), msfa_output_resolution=8, layer_scale_init_value=None)
    V = VOCABULARY
    text = Gemma3nTextConfig(vocab_size=V + 32, vocab_size_per_layer_input=V, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // HEAD, num_key_value_heads=WIDTH // HEAD, head_dim=HEAD, hidden_size_per_layer_input=8, altup_num_inputs=2,
        num_kv_shared_layers=0, laurel_rank=8, activation_sparsity_pattern=[0.] * LAYERS, sliding_window=512, max_position_embeddings=1024,
        layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2), pad_token_id=0, eos_token_id=1, bos_token_id=2)
    vision = Gemma3nVisionConfig(architecture="mobilenetv5_300m_enc", hidden_size=2048, vocab_size=16, vocab_offset=V, model_args=tower())
    audio = Gemma3nAudioConfig(vocab_size=16, vocab_offset=V + 16, hidden_size=32, conf_num_attention_heads=2, conf_num_hidden_layers=1, sscp_conv_channel_size=(4, 4))
    ids = {f"{k}_token_id": tokenizer.convert_tokens_to_ids(getattr(tokenizer, f"{k}_token")) for k in ("image", "audio", "boi", "eoi", "boa", "eoa")}
    model = Gemma3nForConditionalGeneration(Gemma3nConfig(text_config=text, vision_config=vision, audio_config=audio,
        vision_soft_tokens_per_image=SOFT_TOKENS, **ids))
    model.config.vision_config.model_args = tower()  # timm wrote objects into the first one that JSON cannot hold
    for layer in model.model.language_model.layers: layer.self_attn.q_norm.weight.data.fill_(HEAD**-.5)  # else attention starts far too sharp
    ordered_rows(model, tokenizer)
    return model


def ordered_rows(model, tokenizer):
    "Neighbouring locations start with similar rows: a random mix of slow sines and cosines of the bin number."
    rows = model.get_input_embeddings().weight.data
    ids = tokenizer.convert_tokens_to_ids([f"<loc{i:02d}>" for i in range(BINS)])
    angle = torch.arange(BINS)[:, None] * torch.tensor([.5, 1, 2, 3, 4, 6, 8, 12]) * np.pi / BINS
    waves = torch.cat([angle.sin(), angle.cos()], 1) @ torch.randn(16, WIDTH)
    rows[ids] = waves / waves.std() * rows.std()


def scene_of(seed, most):
    "A table of at most so many bodies, of any kind and colour, some of them alike."
    rng = np.random.default_rng([seed, 77])
    table = Table(rng, KNOWN + NEW if rng.random() < .25 else KNOWN, "cylinder" if rng.random() < .15 else "block", OUTER)
    n = table.number(1, most)
    blocks = table.number(0, min(n, 4)) if n < 3 else table.number(max(1, n - 4), min(n, 4))
    hues, pads = table.hues(blocks), table.hues(n - blocks)
    if blocks > 2 and rng.random() < .25: hues = [hues[0]] + [hues[1]] * (blocks - 1)
    if n < 8 and rng.random() < .2:
        wall = Body("wall", "grey", .45, round(float(rng.uniform(-.06, .06)), 4))
        free = table.free_places(n, fits=lambda place: abs(place[1] - wall.y) > .12)
        return Scene("none", "none", seed, "", (*(table.body(*thing) for thing in zip([table.kind] * blocks + ["pad"] * len(pads), hues + pads, free)), wall), ())
    return Scene("none", "none", seed, "", tuple(table.lay(hues, pads)), ())


def draw(job):
    "Images and scenes of a range of seeds."
    seeds, most = job
    world, out = World(), []
    for seed in seeds: out.append((world.reset(scene := scene_of(seed, most)).render(PIXELS), scene))
    world.close()
    return out


def pixel_of(body):
    "Where a body's centre lies in the image: pixels from the left, from the top."
    eye, target = np.array((1.1, 0, .85)), np.array((.49, 0, .02))
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0, 0, 1)); right /= np.linalg.norm(right)
    way = np.array((body.x, body.y, body.half_height)) - eye
    scale = PIXELS / 2 / np.tan(np.radians(18)) / (way @ forward)
    return PIXELS / 2 + way @ right * scale, PIXELS / 2 - way @ np.cross(right, forward) * scale


def pretrain_vision(model, pictures, scenes, steps, rng, log):
    "Teach tower and projection to say, for each of the 8 by 8 cells, what is in it and where."
    n_kinds, n_colours = len(SIZES) + 1, len(COLOURS)
    head = nn.Linear(WIDTH, n_kinds + n_colours + 4)
    parameters = [*model.model.vision_tower.parameters(), *model.model.embed_vision.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    kinds, colours, offsets = np.zeros((len(scenes), 64), np.int64), np.zeros((len(scenes), 64), np.int64), np.zeros((len(scenes), 64, 2), np.float32)
    for i, scene in enumerate(scenes):
        for body in scene.bodies:
            u, v = pixel_of(body)
            cell = int(np.clip(v // 16, 0, 7)) * 8 + int(np.clip(u // 16, 0, 7))
            kinds[i, cell], colours[i, cell], offsets[i, cell] = 1 + list(SIZES).index(body.kind), list(COLOURS).index(body.colour), ((u % 16) / 16 - .5, (v % 16) / 16 - .5)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
    where = torch.stack([columns, rows], -1).reshape(1, 64, 2)
    for step in tqdm(range(steps), "vision"):
        pick = rng.integers(0, len(scenes), 64)
        kind, colour, offset = torch.tensor(kinds[pick]), torch.tensor(colours[pick]), torch.tensor(offsets[pick])
        features = model.model.get_image_features(batch(pictures, pick), return_dict=True).pooler_output
        said, there = head(features).split((n_kinds, n_colours, 2, 2), -1), kind > 0
        loss = F.cross_entropy(said[0].transpose(1, 2), kind, weight=torch.tensor([.2] + [1.] * (n_kinds - 1))) + .5 * F.cross_entropy(said[1][there], colour[there])
        loss = loss + 4 * (said[2] - offset)[there].pow(2).sum(-1).mean() + (said[3] - where).pow(2).mean()
        loss = loss + features.mean((0, 1)).pow(2).mean()  # a component shared by all features would drown what differs
        loss.backward(), optimizer.step(), schedule.step(), optimizer.zero_grad()
        found = (said[0].argmax(-1) == kind) & (said[1].argmax(-1) == colour) & there
        if step % 50 == 49: log(stage="vision", step=step + 1, loss=loss.item(), found=found.sum().item() / there.sum().item())


def batch(pictures, pick): return pictures[pick].float().div(255).contiguous(memory_format=torch.channels_last)


def questions(rng, bodies):
    "A question about a table and its true answer."
    say = lambda kind, **words: str(rng.choice(ENGLISH[kind])).format(**words)
    some, kind = [bodies[i] for i in rng.permutation(len(bodies))], rng.random()
    blocks, pads = ([b for b in some if f(b.kind)] for f in (lambda k: k in MOVABLE, lambda k: k == "pad"))
    alone = [b for b in some if sum(o.name == b.name for o in some) == 1]
    if kind < .3 and blocks and pads:
        distances = pad_distances(bodies := (*blocks, pads[0]))
        return f"How far from the {pads[0].name}?", " ".join([say("seen", **mention(pads[0])), *(say("away", cm=centimetres(distances[i]), **mention(bodies[i])) for i in distances)])
    if kind < .4: return "How many are there?", " ".join(f"{counted(n, name)}." for name, n in sorted((name, len(list(group))) for name, group in itertools.groupby(sorted(b.name for b in bodies))) if n < 5)
    if kind < .7 and alone:
        asked = alone[:int(rng.integers(1, 4))]
        return f"Where is the {' and the '.join(b.name for b in asked)}?", " ".join(say("seen", **mention(b)) for b in asked)
    return "List what is on the table.", " ".join(say("seen", **mention(b)) for b in sorted(bodies, key=lambda b: b.y))


def repetition(rng, scenes):
    "Pieces of text in any order, to be repeated: so that every word the project uses is a word to the model."
    pieces = []
    for _ in range(int(rng.integers(3, 7))):
        scene, kind = scenes[int(rng.integers(len(scenes)))], rng.random()
        if kind < .3: pieces.append(scene.instruction)
        elif kind < .7: pieces.append(str(rng.choice(re.split(r"(?<=\.) ", think_of(scene)))))
        elif kind < .85: pieces.append(str(rng.choice(LANGUAGE)))
        else: pieces.append(f"{rng.choice(str(solve(scene)).split('; '))};")
    text = str(rng.choice([" ", ""])).join(pieces)
    return f"Repeat: {text}", text


class Captions:
    "Batches of question and answer, with image features already computed: the tower is frozen here."
    def __init__(self, tokenizer, features, scenes):
        self.features, self.scenes = features, scenes
        self.texts = [make_scene(t, level, SPLITS["validation"] + SPLIT_SIZE - 1 - s) for t in TASKS for s in range(200) for level in ("L0", "L3")]
        self.head = f"<bos><start_of_turn>user\n\n\n<start_of_image>{'<image_soft_token>' * SOFT_TOKENS}<end_of_image>\n\n"  # as the processor writes it
        self.encode = lambda text: tokenizer(text).input_ids
        self.locs = torch.zeros(VOCABULARY + 32, dtype=torch.bool)
        self.locs[tokenizer.convert_tokens_to_ids([f"<loc{i:02d}>" for i in range(BINS)])] = True

    def __call__(self, pick, rng, repeat=0.):
        "Questions about the tables picked; the share `repeat` are texts to repeat instead."
        rows = []
        for i in pick:
            question, answer = repetition(rng, self.texts) if rng.random() < repeat else questions(rng, self.scenes[i].bodies)
            prompt = self.encode(f"{self.head}{question}<end_of_turn>\n<start_of_turn>model\n")
            rows.append((prompt, self.encode(f"{answer}<end_of_turn>\n")))
        longest = max(len(p) + len(a) for p, a in rows)
        ids = torch.tensor([p + a + [0] * (longest - len(p) - len(a)) for p, a in rows])
        labels = torch.tensor([[-100] * len(p) + a + [-100] * (longest - len(p) - len(a)) for p, a in rows])
        return ids, labels, self.features[pick].float()


def loc_error(captions, logits, labels):
    "Bins between predicted and true location, where a location was due."
    due = captions.locs[labels[:, 1:].clamp(min=0)] & (labels[:, 1:] >= 0)
    return (logits[:, :-1].argmax(-1)[due] - labels[:, 1:][due]).abs()


def forward(model, ids, features):
    from transformers.modeling_outputs import BaseModelOutputWithPooling
    # the tower's raw output is cached; the projection after it still learns
    return model(input_ids=ids, mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=model.model.embed_vision(inputs_embeds=features))}).logits


@torch.no_grad()
def tower_features(model, pictures):
    "The frozen tower's output for every image, (images, 64, 2048), float16."
    vision = model.config.vision_config
    out = []
    for part in tqdm(torch.arange(len(pictures)).split(100), "features"):
        last = model.model.vision_tower(pixel_values=batch(pictures, part), do_pooling=False, return_dict=True).last_hidden_state
        out.append((last.reshape(len(part), vision.hidden_size, SOFT_TOKENS).permute(0, 2, 1) * vision.hidden_size**.5).half())
    return torch.cat(out)


def pretrain_captions(model, tokenizer, pictures, scenes, sizes, steps, rng, log, save, stage=0):
    """One object, then two, then all: the next stage begins when 70 % of locations are within two bins. In the last stage a third of the
    texts are repetitions: words that no caption uses would stay unusable."""
    captions = Captions(tokenizer, tower_features(model, pictures), scenes)
    model.model.vision_tower.requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=.01, betas=(.9, .98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 50) * (1 if s < steps * .6 else max(.03, (steps - s) / (steps * .4))))
    edges, good = np.cumsum([0, *sizes]), 0.
    held_out = np.arange(edges[-1], len(scenes))
    for step in tqdm(range(steps), "captions"):
        pick = rng.integers(edges[stage] if rng.random() < .8 else 0, edges[stage + 1], 64)
        ids, labels, features = captions(pick, rng, .33 if stage == len(sizes) - 1 else 0.)
        with torch.autocast("cpu", torch.bfloat16): logits = forward(model, ids, features)
        logits, due = logits.float(), labels[:, 1:] >= 0
        loss = F.cross_entropy(logits[:, :-1][due], labels[:, 1:][due], reduction="none")
        locs = captions.locs[labels[:, 1:][due]]
        loss = loss[locs].mean() + .5 * loss[~locs].mean()
        loss.backward(), nn.utils.clip_grad_norm_(parameters, 1.), optimizer.step(), schedule.step(), optimizer.zero_grad()
        good = .9 * good + .1 * (loc_error(captions, logits, labels) <= 2).float().mean().item()
        if good > .7 and stage < len(sizes) - 1: stage, good = stage + 1, 0.
        measured = evaluate(model, captions, held_out) if step % 200 == 199 or step + 1 == steps else {}
        if step % 50 == 49: log(stage=f"captions {stage + 1}", step=step + 1, loss=loss.item(), within_2=good, **measured)
        if measured: save()


@torch.no_grad()
def evaluate(model, captions, pick):
    "Locations on tables never trained on."
    model.eval()
    rng, errors = np.random.default_rng(5), []
    for part in np.array_split(pick, max(1, len(pick) // 100)):
        ids, labels, features = captions(part, rng)
        errors.append(loc_error(captions, forward(model, ids, features), labels))
    model.train()
    errors = torch.cat(errors).float()
    return dict(held_out_within_1=(errors <= 1).float().mean().item(), held_out_mean_bins=errors.mean().item())


@dataclass
class Settings:
    "How long to train, and where the result goes."
    folder: Path = Path("thinkact_nb/standin")  # weights, configuration, tokenizer and training log
    seed: int = 0
    vision_steps: int = 450
    caption_steps: int = 1800
    images: int = 10000     # tables with all their objects; 2,000 with one and 2,000 with two come on top
    held_out: int = 500     # tables to measure on
    start: Path | None = None  # continue from these weights


def main(settings: Settings):
    torch.manual_seed(settings.seed)
    rng, start, entries = np.random.default_rng(settings.seed), time.time(), []
    def log(**entry):
        entries.append({k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()} | dict(seconds=round(time.time() - start)))
        print(entries[-1], flush=True)
    def save():
        model.save_pretrained(settings.folder, state_dict={k: v.half().contiguous() for k, v in model.state_dict().items()})
        processor.save_pretrained(settings.folder)
        (settings.folder / "pretraining.json").write_text(json.dumps(entries, indent=0) + "\n")
    processor = AutoProcessor.from_pretrained(settings.start) if settings.start else make_processor()
    model = make_model(processor.tokenizer)
    if settings.start:
        model.load_state_dict(load_file(settings.start / "model.safetensors"))
        entries += json.loads((settings.start / "pretraining.json").read_text())
        start -= entries[-1]["seconds"]
    print(sum(p.numel() for p in model.parameters()), "parameters")
    sizes = (2000, 2000, settings.images)
    last = sum(sizes) + settings.held_out
    jobs = [(range(i, min(i + 250, last)), 1 if i < 2000 else 2 if i < 4000 else 8) for i in range(0, last, 250)]
    with ProcessPoolExecutor(2) as pool: drawn = sum(pool.map(draw, jobs), [])
    pictures, scenes = torch.tensor(np.stack([d[0] for d in drawn])).permute(0, 3, 1, 2), [d[1] for d in drawn]
    log(stage="images", step=len(scenes), loss=0.)
    model.model.vision_tower.to(memory_format=torch.channels_last)
    all_objects = np.arange(4000, sum(sizes))
    if settings.vision_steps: pretrain_vision(model, pictures[all_objects], [scenes[i] for i in all_objects], settings.vision_steps, rng, log)
    pretrain_captions(model, processor.tokenizer, pictures, scenes, sizes, settings.caption_steps, rng, log, save, stage=len(sizes) - 1 if settings.start else 0)


if __name__ == "__main__": main(tyro.cli(Settings))
