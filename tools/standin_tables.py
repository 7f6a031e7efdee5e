"""What the stand-in is taught with: tables of simulator bodies, questions about them, and true answers.

Never an instruction of the nine tasks and never a program: the stand-in plays a *base* model. It learns to see, to name, to count, to measure
and to compare; what a robot should do with that is left to SFT."""
import itertools
import re
import numpy as np
from thinkact_nb.data import ENGLISH, centimetres, counted, mention, think_of
from thinkact_nb.sim import (BINS, CLEARANCE, KNOWN, MOVABLE, NEW, OUTER, SKILLS, Body, Scene, Table, loc_text,
                             make_scene, solve)
from thinkact_nb.tasks import RELATIONS, pad_distances

LANGUAGE = ["<think>", "</think>", "<action>", "</action>", *SKILLS, *(f"<loc{i:02d}>" for i in range(BINS))]
BESIDE = .11        # metres from a thing to the room beside it
ONE_NEAREST = .03   # metres by which the nearest thing must be nearer than the next


def colours_of(table, blocks, pads, plain):
    "Colours of blocks and pads: blocks are sometimes alike, and most pads have the colour of some block, so that colour alone finds nothing; or all differ."
    hues = table.hues(blocks + pads * plain)
    if plain:
        return hues[:blocks], hues[blocks:]
    if blocks > 2 and table.rng.random() < .25:
        hues = [hues[0]] + [hues[1]] * (blocks - 1)
    others = [c for c in table.hues(len(table.colours)) if c not in hues]
    shared = list(dict.fromkeys(table.rng.permutation(hues).tolist())) if hues else []
    painted = []
    for _ in range(pads):
        source = shared if shared and (table.rng.random() < .7 or not others) else others
        painted.append(source.pop())
    return hues, painted


def kinds_of(table, blocks):
    "Blocks alone, cylinders alone, or both: the second and third so that one is told from the other."
    draw = table.rng.random()
    if draw < .65:
        return ["block"] * blocks
    if draw < .8:
        return ["cylinder"] * blocks
    return [str(k) for k in table.rng.choice(MOVABLE, blocks)]


def table_of(seed, most, plain=False):
    "A table of one to so many bodies, or of 3 to so many whose colours all differ: a pure function of its arguments."
    rng = np.random.default_rng([seed, 77])
    table = Table(rng, KNOWN + NEW if rng.random() < .25 else KNOWN, inside=OUTER)
    n = table.number(3 if plain else 1, most)
    blocks = table.number(0, n) if n < 3 else table.number(max(1, n - 4), min(n, 4))
    hues, painted = colours_of(table, blocks, n - blocks, plain)
    kinds = kinds_of(table, blocks) + ["pad"] * len(painted)
    wall = []
    if n < 8 and not plain and rng.random() < .2:
        wall = [Body("wall", "grey", .45, round(float(rng.uniform(-.06, .06)), 4))]
    fits = lambda place: all(abs(place[1] - w.y) > .12 for w in wall)
    bodies = [table.body(*thing) for thing in zip(kinds, hues + painted, table.free_places(n, fits=fits))]
    return Scene("none", "none", seed, "", (*bodies, *wall), ())


class Asker:
    "Questions about one table with their true answers; every choice comes from one generator."
    def __init__(self, rng, bodies, kinds=None):
        self.rng, self.kinds = rng, kinds  # kinds of questions; None: all
        self.bodies = list(bodies)
        self.blocks = [b for b in bodies if b.kind in MOVABLE]
        self.pads = [b for b in bodies if b.kind == "pad"]
        names = [b.name for b in bodies]
        self.alone = [b for b in bodies if names.count(b.name) == 1]

    def say(self, kind, **words):
        return str(self.rng.choice(ENGLISH[kind])).format(**words)

    def pick(self, some, n=1):
        return [some[i] for i in self.rng.permutation(len(some))[:n]]

    def seen(self, bodies):
        return " ".join(self.say("seen", **mention(b)) for b in bodies)

    def in_order(self, bodies):
        "By colour, then by kind: who comes next follows from what was said, and a name is what the model looks things up by."
        return sorted(bodies, key=lambda b: b.rank)

    def where(self):
        asked = self.pick(self.alone, int(self.rng.integers(1, 4)))
        return f"Where is the {' and the '.join(b.name for b in asked)}?", self.seen(asked)

    def list_all(self):
        return "List what is on the table.", self.seen(self.in_order(self.bodies))

    def list_kind(self):
        kind = str(self.rng.choice(sorted({b.kind for b in self.bodies})))
        some = self.in_order([b for b in self.bodies if b.kind == kind])
        return (f"Where is the {kind}?" if len(some) == 1 else f"Where are the {kind}s?"), self.seen(some)

    def count(self):
        groups = itertools.groupby(sorted(b.name for b in self.bodies))
        counts = sorted((len(list(group)), name) for name, group in groups)
        return "How many are there?", " ".join(f"{counted(n, name)}." for n, name in reversed(counts) if n < 5)

    def distances(self, pad):
        "The pad, then every block with its distance, and which distance belongs to which block."
        bodies = (*self.in_order(self.blocks), pad)
        away = pad_distances(bodies)
        told = [self.say("away", cm=centimetres(away[i]), **mention(bodies[i])) for i in away]
        return " ".join([self.seen([pad]), *told]), [(d, bodies[i]) for i, d in away.items()]

    def far(self):
        pad, = self.pick([p for p in self.pads if p in self.alone])
        return f"How far from the {pad.name}?", self.distances(pad)[0]

    def extreme(self):
        pad, = self.pick([p for p in self.pads if p in self.alone])
        told, away = self.distances(pad)
        word = str(self.rng.choice(["nearest", "farthest"]))
        ranked = sorted(away, key=lambda entry: entry[0], reverse=word == "farthest")
        if len(ranked) > 1 and abs(ranked[0][0] - ranked[1][0]) < ONE_NEAREST:
            return None
        end = self.say("choice", word=word, name=ranked[0][1].name)
        preposition = "to" if word == "nearest" else "from"
        return f"What is {word} {preposition} the {pad.name}?", f"{told} {end}"

    def room(self):
        "Where eleven centimetres beside a thing is, if that is on the table and free."
        thing, = self.pick(self.alone)
        relation = str(self.rng.choice(list(RELATIONS)))
        spot = tuple(float(v + BESIDE * d) for v, d in zip(thing.place, RELATIONS[relation]))
        if not all(lo <= v <= hi for v, (lo, hi) in zip(spot, OUTER)):
            return None
        if any(np.hypot(*np.subtract(spot, b.place)) < CLEARANCE for b in self.bodies if b is not thing):
            return None
        answer = self.say("beside", relation=relation, goal=thing.name, loc=loc_text(*spot))
        return f"Where is room {relation} the {thing.name}?", f"{self.seen([thing])} {answer}"

    def relation(self):
        one, other = self.pick(self.alone, 2)
        offset = np.subtract(one.place, other.place)
        along = {relation: float(np.dot(offset, way)) for relation, way in RELATIONS.items()}
        best, second = sorted(along.values())[:-3:-1]
        if best - second < .04:
            return None
        relation = max(along, key=along.get)
        return f"How does the {one.name} lie to the {other.name}?", f"{self.seen([one, other])} The {one.name} is {relation} the {other.name}."

    def __call__(self):
        "One question and its answer."
        can = dict(where=(.34, self.alone), list_all=(.17, True), list_kind=(.09, True), count=(.06, True), room=(.1, self.alone),
                   relation=(.05, len(self.alone) > 1))
        measured = self.blocks and [p for p in self.pads if p in self.alone]
        can |= dict(far=(.07, measured), extreme=(.12, measured))
        names = [name for name, (_, possible) in can.items() if possible and (self.kinds is None or name in self.kinds)]
        weights = np.array([can[name][0] for name in names])
        while True:
            name = str(self.rng.choice(names, p=weights / weights.sum()))
            asked = getattr(self, name)()
            if asked:
                return asked


def repetition(rng, scenes):
    "Pieces of text in any order, to be repeated: so that every word the project uses is a word to the model."
    pieces = []
    for _ in range(int(rng.integers(2, 5))):
        scene = scenes[int(rng.integers(len(scenes)))]
        kind = rng.random()
        if kind < .3:
            pieces.append(scene.instruction)
        elif kind < .7:
            pieces.append(str(rng.choice(re.split(r"(?<=\.) ", think_of(scene)))))
        elif kind < .85:
            pieces.append(str(rng.choice(LANGUAGE)))
        else:
            pieces.append(f"{rng.choice(str(solve(scene)).split('; '))};")
    text = str(rng.choice([" ", ""])).join(pieces)
    return f"Repeat: {text}", text


def words_scenes(tasks, n, first):
    "Scenes whose words, not images, are read: for the tokenizer and for repetitions."
    return [make_scene(task, level, first + s) for task in tasks for level in ("L0", "L3") for s in range(n)]
