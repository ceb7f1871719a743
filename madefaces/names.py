"""Given names for made people: a family shares an initial, so that a reader sees who is a look-alike of whom."""

from __future__ import annotations

import re

# Six for each initial, from many languages; a family takes them in order.
GIVEN = """
    Ada Anan Aiko Asif Alma Aroha
    Bela Bao Binta Bruno Berit Bilal
    Chidi Carla Chen Cleo Cyrus Celia
    Dana Dembe Dilek Diego Daya Dov
    Emil Ebele Elif Enzo Esra Eun
    Femi Freya Farid Fumi Flora Farah
    Goran Gita Greta Guo Gamal Gwen
    Hana Hugo Hamza Heidi Hina Hiro
    Ines Ivo Imani Isko Ilse Idris
    Jiro Jana Juma Jade Jomo Joao
    Kofi Kaya Kenji Karin Kiran Kamil
    Lena Lwazi Leila Luca Linh Lars
    Mina Mateo Malik Maia Marek Mei
    Nils Nia Noor Nadia Nuno Naoki
    Olga Omar Oona Obi Orla Otto
    Pia Pavel Priya Paolo Phuong Petra
    Rosa Rafi Rin Ravi Runa Renzo
    Suda Sami Sora Sven Sina Sipho
    Tove Tariq Tala Taro Tessa Thabo
    Vera Viggo Valeria Vikram Vida Victor
"""
FAMILY_NAMES = [line.split() for line in GIVEN.split("\n") if line.strip()]
LABEL = re.compile(r"family(\d+)_([a-z])")


def given_name(label: str) -> str:
    """What a person is called on a page, from the name of the folder: "family00_b" is Anan.

    Every label has a name of its own: where families outnumber initials, or members names, a number follows ("Ada 2").
    Any other label, such as the folder of somebody photographed, has its underscores replaced by spaces.
    """
    found = LABEL.fullmatch(label)
    if not found:
        return label.replace("_", " ")
    family, member = int(found[1]), ord(found[2]) - ord("a")
    names = FAMILY_NAMES[family % len(FAMILY_NAMES)]
    turn = family // len(FAMILY_NAMES) * -(-26 // len(names)) + member // len(names)
    return names[member % len(names)] + (f" {turn + 1}" if turn else "")
