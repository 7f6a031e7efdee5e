"What `PPOTrainer` and `fuse_head` lean on in TRL, by name: a release that moves one of these fails here, with a sentence, and not in a training."
import inspect
from dataclasses import replace

import pytest
import torch
import trl
from trl import GRPOTrainer, SFTTrainer
from trl.trainer import grpo_trainer, sft_trainer, utils

from thinkact_nb import ledger
from thinkact_nb.algorithms import deal
from thinkact_nb.checkpoints import Store
from thinkact_nb.env import get_profile, seed_all
from thinkact_nb.model import load_model
from thinkact_nb.pool import SimPool
from thinkact_nb.trainer import PPOTrainer, rl_trainer
from thinkact_nb.sft import ValidatedSFT

# what PPOTrainer overrides, and what each is called with: three hooks in an update, and what a checkpoint has beside TRL's
OVERRIDDEN = {
    '_generate_and_score_completions': ['inputs'],
    '_prepare_inputs': ['generation_batch'],
    '_compute_loss': ['model', 'inputs'],
    '_save': ['output_dir', 'state_dict'],
    '_load_from_checkpoint': ['resume_from_checkpoint', 'model'],
}
# what it asks TRL for, and with what
CALLED = {
    '_tokenize_prompts': ['prompts'],
    '_get_per_token_logps_and_entropies': ['model', 'input_ids', 'attention_mask', 'logits_to_keep'],
}
OURS = [cls for cls in PPOTrainer.__mro__ if cls.__module__ == PPOTrainer.__module__]
# what it reads without overriding it: attributes and keys that TRL writes
READ = ('_step', '_buffered_inputs', '_metrics', 'num_iterations', 'num_generations', '"completion_mask"', '"completion_ids"')


def own(cls): return {n for n, x in vars(cls).items() if callable(x) and n.startswith('_') and not n.startswith('__')}


def test_every_private_method_that_is_overridden_is_listed():
    overridden = {n for cls in OURS for n in own(cls) if hasattr(GRPOTrainer, n)}
    assert overridden == OVERRIDDEN.keys(), f'PPOTrainer overrides {overridden ^ OVERRIDDEN.keys()} and the list in this file does not say so, or the other way round'
    assert not {n for n in own(ValidatedSFT) if hasattr(SFTTrainer, n)}


def test_a_class_stands_in_one_place():
    "Guard: outlines and jump-to-definition see what a class body has; at most a third of its methods is patched on."
    for cls in OURS:
        methods, body = [n for n, x in vars(cls).items() if inspect.isfunction(x) and not n.startswith('_orig_')], inspect.getsource(cls)
        patched = [n for n in methods if f'def {n}(' not in body]
        assert 3*len(patched) <= len(methods), f'{cls.__name__}: {patched} of {methods}'


@pytest.mark.parametrize('name', OVERRIDDEN | CALLED)
def test_trl_still_has_it(name):
    there, expected = getattr(GRPOTrainer, name, None), (OVERRIDDEN | CALLED)[name]
    assert there, f'TRL {trl.__version__} has no GRPOTrainer.{name} any more: PPOTrainer overrides or calls it; find where TRL does it now'
    takes = [p for p in inspect.signature(there).parameters if p != 'self'][:len(expected)]
    assert takes == expected, f'TRL {trl.__version__} calls GRPOTrainer.{name} with {takes}, PPOTrainer expects {expected}'


@pytest.mark.parametrize('name', READ)
def test_trl_still_writes_it(name):
    assert name in inspect.getsource(grpo_trainer), f'TRL {trl.__version__} has no {name} in its GRPO trainer any more, and PPOTrainer reads it'


def test_trl_still_asks_for_its_head_where_ours_is_put():
    "Before 1.16 there was no such place."
    if tuple(map(int, trl.__version__.split('.')[:2])) < (1, 16): pytest.skip('this TRL copies the table in its own head')
    for trainer in (grpo_trainer, sft_trainer): assert hasattr(trainer, 'add_fused_lm_head'), f'TRL {trl.__version__} does not call add_fused_lm_head in {trainer.__name__}: `fuse_heads` has no effect, and the table of the vocabulary is copied'
    for name in ('FusedCausalLMOutput', 'shuffle_sequence_dict', 'split_tensor_dict'): assert hasattr(utils, name), f'TRL {trl.__version__} has no trl.trainer.utils.{name} any more'


# TRL's own method as the oracle: what it makes of the same rows and of the same minibatch
SMALL = replace(get_profile('tiny'), rl_batch=8, rl_micro_batch=4, max_new_tokens=12)
SAME = ('prompt_ids', 'prompt_mask', 'completion_ids', 'completion_mask', 'pixel_values', 'token_type_ids', 'num_images')


@pytest.fixture(scope='module', params=['ppo', 'grpo'])
def rolled(request, tmp_path_factory):
    "A trainer after a rollout of eight texts, its batch, and TRL's batch of the same rows, drawn from the same numbers."
    store = Store(tmp_path_factory.mktemp('rolled')/'run', SMALL)
    seed_all(0)
    model = load_model(SMALL, trainable=True)
    for name, parameter in model.named_parameters():
        if 'lora_B' in name: torch.nn.init.normal_(parameter, std=.02)
    model.save_pretrained(store.path('sft'))
    trainer = rl_trainer(store, SimPool(0), request.param, updates=1, value_weight=0.)
    trainer.model.train()
    k = trainer.num_generations
    rows = [trainer.train_dataset[i//k] for i in range(8)]
    earned = [1., -1, .5, -1, -1, .25, -1, -1]  # the simulator says -1 of all
    judge = ledger.judge
    made = []
    for method in (PPOTrainer, GRPOTrainer):
        seed_all(7)
        with pytest.MonkeyPatch.context() as given:
            given.setattr(ledger, 'judge', lambda *asked: [replace(e, reward=r) for e, r in zip(judge(*asked), earned)])
            made.append(method._generate_and_score_completions(trainer, [dict(row) for row in rows]))
        trainer.reward_funcs = [lambda **_: earned]  # TRL's own way to ask
    return trainer, *made


def test_a_rollout_is_what_trl_makes_of_the_same_rows(rolled):
    "Guard: prompts, pictures, texts and the probabilities of their tokens are put together by us; TRL says how."
    trainer, ours, theirs = rolled
    for name in SAME:
        one, other = (batch.get(name) for batch in (ours, theirs))
        assert torch.equal(one, other) if torch.is_tensor(one) else one == other, name
    mask = ours['completion_mask']
    for name in ('old_per_token_logps', 'ref_per_token_logps'): torch.testing.assert_close(ours[name]*mask, theirs[name]*mask, atol=5e-5, rtol=1e-5)
    if trainer.args.baseline == 'group':
        wide = theirs['advantages'][:, None]*mask
        torch.testing.assert_close(ours['advantages'].view(8, -1)*mask, wide, atol=1e-6, rtol=1e-6)
        assert wide.abs().max() > .5


def test_the_loss_is_trls(rolled):
    "Guard: the clipped surrogate and the KL, and their gradients; ratios on both sides of the clip, advantages of both signs."
    trainer, ours, _ = rolled
    trainer.current_gradient_accumulation_steps = 1
    torch.manual_seed(1)
    part = deal(ours, 2, 1)[0]
    for name in ('old_per_token_logps', 'ref_per_token_logps'): part[name] = part[name] + .3*torch.randn_like(part[name])
    part['advantages'] = torch.randn_like(part['old_per_token_logps'])
    weights = [p for n, p in trainer.model.named_parameters() if p.requires_grad and 'value_head' not in n]
    found = []
    for method in (PPOTrainer, GRPOTrainer):
        loss = method._compute_loss(trainer, trainer.model, part)
        found.append((loss.detach(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])))
    (one, slope), (other, same) = found
    torch.testing.assert_close(one, other*trainer._share(part), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(slope, same*trainer._share(part), atol=1e-6, rtol=1e-4)
    assert same.norm() > 1e-3
