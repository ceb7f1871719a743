"""Who looks like whom to a network."""

import torch
import torch.nn.functional as F

from xfrlib.look_alikes import embeddings, look_alikes


def test_embeddings_are_averaged_feature_maps_of_length_one():
    features = torch.rand(3, 5, 4, 2)
    expected = F.normalize(features.mean(dim=(2, 3)), dim=1)
    torch.testing.assert_close(embeddings(features), expected)
    torch.testing.assert_close(embeddings(features).norm(dim=1), torch.ones(3))


def test_look_alikes_are_those_of_the_nearest_mean_embedding():
    corners = {0: [3.0, 0], 1: [2, 1], 4: [0, 2], 3: [-5, -3]}  # the mean is 0
    labels = [label for label in corners for _ in range(2)] + [-1]
    around = [0.5, -0.5] * 4 + [0]  # the two pictures of a person lie about her corner
    points = torch.tensor([corners.get(label, [3.0, 0]) for label in labels]) + torch.tensor(around)[:, None]
    found = points + torch.tensor([10.0, -7])
    assert look_alikes(found, labels, 0) == [1, 4, 3]
    assert look_alikes(found, labels, 4) == [1, 0, 3]
