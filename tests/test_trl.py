"What `PPOTrainer` and `fuse_head` lean on in TRL, by name: a release that moves one of these fails here, with a sentence, and not in a training."
import inspect

import pytest
import trl
from trl import GRPOTrainer, SFTTrainer
from trl.trainer import grpo_trainer, sft_trainer, utils

from thinkact_nb.trainer import PPOTrainer
from thinkact_nb.sft import ValidatedSFT

# what PPOTrainer overrides, and what each is called with
OVERRIDDEN = {
    '_tokenize_prompts': ['prompts'],
    '_generate': ['prompts'],
    '_calculate_rewards': ['inputs', 'prompts', 'completions', 'completion_ids_list'],
    '_get_per_token_logps_and_entropies': ['model', 'input_ids', 'attention_mask', 'logits_to_keep'],
    '_generate_and_score_completions': ['inputs'],
    '_prepare_inputs': ['generation_batch'],
    '_compute_loss': ['model', 'inputs'],
    '_save': ['output_dir', 'state_dict'],
    '_load_from_checkpoint': ['resume_from_checkpoint', 'model'],
}
# what it reads without overriding it: attributes and keys that TRL writes
READ = ('_step', '_buffered_inputs', '_metrics', 'num_iterations', 'num_generations', '"completion_mask"', '"completion_ids"', '"ref_per_token_logps"', '"old_per_token_logps"', '"advantages"')


def own(cls): return {n for n, x in vars(cls).items() if callable(x) and n.startswith('_') and not n.startswith('__')}


def test_every_private_method_that_is_overridden_is_listed():
    overridden = {n for n in own(PPOTrainer) if hasattr(GRPOTrainer, n)}
    assert overridden == OVERRIDDEN.keys(), f'PPOTrainer overrides {overridden ^ OVERRIDDEN.keys()} and the list in this file does not say so, or the other way round'
    assert not {n for n in own(ValidatedSFT) if hasattr(SFTTrainer, n)}


@pytest.mark.parametrize('name', OVERRIDDEN)
def test_trl_still_has_it(name):
    there = getattr(GRPOTrainer, name, None)
    assert there, f'TRL {trl.__version__} has no GRPOTrainer.{name} any more: PPOTrainer overrides it, so what it did there is not done; find where TRL does it now'
    takes = [p for p in inspect.signature(there).parameters if p != 'self'][:len(OVERRIDDEN[name])]
    assert takes == OVERRIDDEN[name], f'TRL {trl.__version__} calls GRPOTrainer.{name} with {takes}, PPOTrainer expects {OVERRIDDEN[name]}'


@pytest.mark.parametrize('name', READ)
def test_trl_still_writes_it(name):
    assert name in inspect.getsource(grpo_trainer), f'TRL {trl.__version__} has no {name} in its GRPO trainer any more, and PPOTrainer reads it'


def test_trl_still_asks_for_its_head_where_ours_is_put():
    "Before 1.16 there was no such place."
    if tuple(map(int, trl.__version__.split('.')[:2])) < (1, 16): pytest.skip('this TRL copies the table in its own head')
    for trainer in (grpo_trainer, sft_trainer): assert hasattr(trainer, 'add_fused_lm_head'), f'TRL {trl.__version__} does not call add_fused_lm_head in {trainer.__name__}: `fuse_heads` has no effect, and the table of the vocabulary is copied'
    for name in ('FusedCausalLMOutput', 'shuffle_sequence_dict', 'split_tensor_dict'): assert hasattr(utils, name), f'TRL {trl.__version__} has no trl.trainer.utils.{name} any more'
