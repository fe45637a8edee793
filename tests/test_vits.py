"""Feature maps of transformers: tokens in the order of the grid, positions for any image size."""

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from small_data import save_random

from pradot import Encoder, PradotError
from pradot.weights import BlocksOfVit

pytestmark = pytest.mark.usefixtures("no_hub")


def colours_as_tokens(model):
    """A ViT that only looks: token = mean colour of its patch in three of its channels, blocks add nothing."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(
                ("attn.proj.weight", "attn.proj.bias", "fc2.weight", "fc2.bias", "pos_embed", "patch_embed.proj.bias")
            ):
                value.zero_()
        weight = model.patch_embed.proj.weight.zero_()  # (channels, 3, patch, patch)
        for colour in range(3):
            weight[colour, colour] = 1 / weight[0, 0].numel()
    return model


def tokens_expected(image, patch):
    """Layer-normalised mean colours (height, width, 3 used channels) of the patches of a normalised image (3, h, w)."""
    return torch.nn.functional.avg_pool2d(image[None], patch)[0].permute(1, 2, 0)


class Tokens(torch.nn.Module):
    """A timm ViT as one might hand it in: all tokens of the last block, class and register tokens first."""

    def __init__(self, model):
        super().__init__()
        self.model, self.num_prefix_tokens = model, model.num_prefix_tokens

    def forward(self, x):
        return self.model.forward_features(x)


VITS = {
    "dinov2": lambda: timm.models.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=12, depth=2, num_heads=2, reg_tokens=4, num_classes=0
    ),
    "dinov3": lambda: timm.models.Eva(
        img_size=64, patch_size=16, embed_dim=24, depth=2, num_heads=2, num_reg_tokens=4, use_rot_pos_emb=True, num_classes=0
    ),
}


@pytest.mark.parametrize("kind", VITS)
def test_tokens_become_a_map_in_the_order_of_the_grid(kind, draw):
    model = colours_as_tokens(VITS[kind]().eval())
    model.norm, model.fc_norm = torch.nn.Identity(), torch.nn.Identity()
    model.norm_pre = torch.nn.Identity()
    encoder = Encoder.from_module(Tokens(model), kind, scales=(3,), image_size=64, mean=(0, 0, 0), std=(1, 1, 1))
    assert model.num_prefix_tokens == 5 and encoder.grids == {3: (4, 4)} and encoder.channels == {3: model.embed_dim}
    (image,) = draw(1, 0)
    image[:16, 16:32] = (255, 0, 0)  # first row, second column
    maps = encoder.features([image])[3][0]  # (4, 4, channels)
    colours = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)
    torch.testing.assert_close(maps[:, :, :3], tokens_expected(colours, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(maps[0, 1, :3], torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", VITS)
def test_maps_of_blocks_are_the_normalised_patch_tokens(kind):
    torch.manual_seed(0)
    model = VITS[kind]().eval()
    model.pretrained_cfg = {}
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        tokens = model.forward_features(image)[:, 5:]  # (2, 16, channels), after the last block and the norm
        maps = BlocksOfVit(model, (0, 1))(image)
    assert [tuple(one.shape) for one in maps] == 2 * [(2, model.embed_dim, 4, 4)]
    torch.testing.assert_close(maps[1].flatten(2).transpose(1, 2), tokens)


def test_a_named_vit_resamples_its_positions_to_the_images_size(tmp_path, draw):
    """Positions learned at 160 px that rise from left to right do so at 64 px too, and the grid is that of 64 px."""
    path, model = save_random(tmp_path, "test_vit")
    side = model.patch_embed.grid_size[0]
    state = model.state_dict()
    slope = torch.linspace(-1, 1, side).repeat(side)[:, None] * torch.linspace(-1, 1, state["pos_embed"].shape[2])
    state["pos_embed"][0, -(side**2) :] = slope
    safetensors.torch.save_file(state, path)
    encoder = Encoder("test_vit", weights=path, scales=(1, 5), image_size=64)
    assert encoder.grids == {1: (4, 4), 5: (4, 4)}
    positions = encoder.module.model.pos_embed[0, -16:].view(4, 4, -1)
    assert (positions[:, :-1, -1] < positions[:, 1:, -1]).all() and positions[:, :, -1].std(0).max() < 1e-5
    assert encoder.features(draw(1, 0))[5].shape[1:3] == (4, 4)


@pytest.mark.parametrize("n_prefix", [0, 1])
def test_tokens_that_are_no_square_map_are_named(n_prefix):
    module = torch.nn.Identity()
    module.forward = lambda x: torch.zeros(len(x), 18, 5)
    module.num_prefix_tokens = n_prefix
    with pytest.raises(PradotError, match=r"a tensor of shape \(1, 18, 5\).*num_prefix_tokens"):
        Encoder.from_module(module, "odd", image_size=64)


def test_a_vit_has_no_block_beyond_its_last_one(tmp_path):
    path, _ = save_random(tmp_path, "test_vit")
    with pytest.raises(PradotError, match=r"cannot build test_vit.*scales"):
        Encoder("test_vit", weights=path, scales=(99,), image_size=64)
