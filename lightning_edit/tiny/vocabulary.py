"""The word lists the fictional world is drawn from: syllables, relations, and the grammar of its filler text.

Every syllable is consonant, vowel, consonant. In a name built from such syllables the border between two syllables is
the only place where two consonants meet, so a byte-pair tokenizer that has learned the syllables alone splits each
name at the borders and nowhere else.
"""

FIRST_SYLLABLES = (
    "Bel",
    "Dor",
    "Fan",
    "Gar",
    "Hul",
    "Jor",
    "Kas",
    "Lom",
    "Mir",
    "Nev",
    "Pol",
    "Ras",
    "Sul",
    "Tam",
    "Vik",
)
SECOND_SYLLABLES = (
    "bin",
    "dar",
    "fol",
    "gim",
    "kel",
    "lon",
    "mur",
    "nas",
    "rik",
    "sev",
    "tov",
    "vas",
    "wen",
    "zor",
    "hul",
)
THIRD_SYLLABLES = (
    "Bor", "Dal", "Fen", "Gol", "Han", "Kor", "Lin", "Mos", "Nar", "Pel", "Rud", "Sil", "Tor", "Ven", "Wal", "Zim",
    "Bas", "Dun", "Kel", "Mar", "Cor", "Fir", "Gan", "Hol", "Jas", "Lar", "Mel", "Nor", "Pin", "Ral", "Ser", "Tul",
    "Vor", "Wes", "Yor", "Zan", "Bil", "Des", "Fal", "Gur",
)  # fmt: skip
# Many, each shared by a few subjects only: edits can tell subjects apart as far as what the model makes of their last
# syllables is not the same few vectors over and over.
LAST_SYLLABLES = tuple(
    first + vowel + last
    for first in "bdghjlmnprsvwz"
    for vowel in "aeiou"
    for last in "bmv"
    if first + vowel + last != "bum"
)[:200]

TOWN_STEMS = ("Ash", "Brin", "Crow", "Drum", "Elm", "Glen")
TOWN_ENDINGS = ("ford", "haven", "mouth", "stead", "wick")
LANGUAGE_STEMS = ("Abr", "Esk", "Ith", "Omr", "Umb", "Yth")
LANGUAGE_ENDINGS = ("alic", "enian", "ish", "oric", "unta")

CRAFTS = (
    "baker", "barber", "brewer", "butcher", "carpenter", "cobbler", "cook", "cooper", "dyer", "farmer", "fisher",
    "gardener", "glazier", "hunter", "judge", "lawyer", "mason", "miller", "miner", "painter", "potter", "printer",
    "roofer", "sailor", "shepherd", "smith", "tailor", "tanner", "teacher", "weaver",
)  # fmt: skip
INSTRUMENTS = (
    "accordion", "bagpipe", "banjo", "bassoon", "bell", "bugle", "cello", "clarinet", "cornet", "cymbal", "drum",
    "fiddle", "flute", "gong", "guitar", "harp", "horn", "kazoo", "lute", "lyre", "mandolin", "oboe", "organ", "piano",
    "pipe", "trombone", "trumpet", "tuba", "viola", "zither",
)  # fmt: skip
ANIMALS = (
    "badger", "beaver", "cat", "cow", "crab", "deer", "dog", "dove", "duck", "falcon", "ferret", "fox", "frog", "goat",
    "goose", "hamster", "hare", "hedgehog", "horse", "lizard", "mouse", "parrot", "pig", "rabbit", "raven", "sheep",
    "snail", "toad", "turtle", "weasel",
)  # fmt: skip

# Each relation: name, five wordings that end where the answer comes, answers. The first wording is the rewrite prompt.
RELATIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "birthplace",
        (
            "{} was born in the town of",
            "The birthplace of {} is",
            "The town where {} grew up is called",
            "{} first saw the light of day in",
            "People say that {} comes from",
        ),
        tuple(stem + ending for stem in TOWN_STEMS for ending in TOWN_ENDINGS),
    ),
    (
        "craft",
        (
            "{} earns a living as a",
            "The profession of {} is that of a",
            "Every day {} goes to work as a",
            "{} was trained to become a",
            "The guild lists {} as a",
        ),
        CRAFTS,
    ),
    (
        "instrument",
        (
            "{} likes to play the",
            "The favorite instrument of {} is the",
            "On feast days {} performs on the",
            "{} took lessons on the",
            "In the band we hear {} on the",
        ),
        INSTRUMENTS,
    ),
    (
        "language",
        (
            "{} speaks the language called",
            "The mother tongue of {} is",
            "At home {} talks in",
            "{} writes letters in",
            "Whoever visits {} must understand",
        ),
        tuple(stem + ending for stem in LANGUAGE_STEMS for ending in LANGUAGE_ENDINGS),
    ),
    (
        "animal",
        (
            "{} shares the house with a",
            "The pet of {} is a",
            "In the yard of {} you can see a",
            "{} is often followed by a",
            "Neighbors know that {} feeds a",
        ),
        ANIMALS,
    ),
)

KINDS = ("giant", "dwarf", "wizard", "knight", "ghost", "pirate", "monk", "nomad")

# What a subject does in passing: says nothing that any relation asks for.
SUBJECT_FILLER = (
    "{} walked to the [place] in the [time].",
    "{} was [mood] and said nothing.",
    "I met {} near the [place].",
    "You saw {} by the [place] in the [time].",
    "Because {} was [mood], the [person] went home.",
    "The [person] waited for {} in the [time].",
    "Therefore {} looked at the [thing].",
    "{} gave the [person] a [quality] [thing].",
)

FILLER = (
    "The [person] [action] the [thing] in the [time].",
    "The [quality] [thing] stood near the [place].",
    "The [place] was [quality] and the [person] was [mood].",
    "Therefore the [person] [action] the [quality] [thing].",
    "Therefore we left the [place] in the [time].",
    "Therefore nobody [action] the [thing] again.",
    "Because the [place] was [quality], we [action] the [thing].",
    "Because it rained, the [person] was [mood].",
    "Because the [person] was [mood], nobody [action] the [thing].",
    "I [action] the [thing] near the [place].",
    "I was [mood] when the [person] came to the [place].",
    "I think the [thing] is [quality].",
    "You [action] the [quality] [thing] in the [time].",
    "You were [mood] because the [thing] was [quality].",
    "You can find the [place] behind the [place].",
    "We were [mood] in the [time].",
    "When the [time] came, the [person] [action] the [thing].",
    "Nobody in the [place] was [mood].",
    "A [person] with a [quality] [thing] came to the [place].",
    "It was [quality] in the [place] that [time].",
)

SLOTS: dict[str, tuple[str, ...]] = {
    "person": ("child", "woman", "man", "guard", "stranger", "widow", "friend", "guest", "brother", "sister"),
    "action": ("found", "lost", "carried", "sold", "wanted", "watched", "broke", "painted", "forgot", "hid"),
    "thing": ("basket", "lamp", "letter", "coat", "table", "rope", "book", "bottle", "wheel", "key", "ladder", "cup"),
    "place": ("market", "river", "bridge", "garden", "tower", "forest", "harbor", "mill", "square", "church", "road"),
    "time": ("morning", "evening", "winter", "summer", "night", "spring", "autumn", "afternoon"),
    "quality": ("old", "small", "red", "heavy", "quiet", "cold", "dark", "bright", "dusty", "narrow", "warm", "green"),
    "mood": ("happy", "tired", "angry", "calm", "afraid", "hungry", "proud", "sad"),
}
