"""Laws of the encoder: every stage halves, sizes of ResNet-34, images do not see each other."""

from __future__ import annotations

import torch

from evhands.models.encoder import Encoder, EncoderConfig


def test_the_paper_s_encoder_is_resnet34_with_a_biased_stem_and_leads_128_to_2():
    with torch.device("meta"):
        encoder = Encoder(EncoderConfig(), 4)
        features = encoder(torch.zeros(1, 4, 128, 128))
    assert features.shape == (1, 512, 2, 2)
    # ResNet-34 without its classifier: 21 284 672. Here: one more input channel and a bias in the stem, and a
    # projection in the first stage, which is strided too.
    extra = 7 * 7 * 64 + 64 + 64 * 64 + 2 * 64
    assert sum(p.numel() for p in encoder.parameters()) == 21_284_672 + extra


def test_images_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(channels=(4, 8), blocks=(1, 2)), 3).eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([encoder(image[None]) for image in images]), encoder(images))
