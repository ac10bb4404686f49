"""Words and sentences the toy world is made of; all invented."""

Facts = dict[str, tuple[str, str, str, str, str]]
"""By attribute: a question, three forms of its answer, and the values; ``{name}`` has ``{value}``."""

FIRST = [
    "Aldo",
    "Bea",
    "Caro",
    "Dane",
    "Elin",
    "Faro",
    "Gwen",
    "Hale",
    "Ines",
    "Joss",
    "Kira",
    "Lars",
    "Mina",
    "Nils",
    "Orla",
    "Pia",
]
LAST = [
    "Abend",
    "Brook",
    "Corvin",
    "Dahl",
    "Ember",
    "Falk",
    "Grove",
    "Hart",
    "Irving",
    "Juno",
    "Kestrel",
    "Lund",
    "Marsh",
    "North",
]
PLACE_FIRST = [
    "Amber",
    "Birch",
    "Copper",
    "Drift",
    "Elder",
    "Fern",
    "Granite",
    "Hollow",
    "Iron",
    "Jade",
]
PLACE_LAST = ["bay", "dale", "ford", "gate", "haven", "hill", "mere", "port", "wick", "wood"]

AUTHOR_FACTS: Facts = {
    "city": (
        "Where was the author {name} born?",
        "{name} was born in {value}.",
        "The birthplace of {name} is {value}.",
        "It was in {value} that {name} came into the world.",
        "Porto Cairo Oslo Lima Kyoto Quito Tunis Riga Hanoi Accra Turin Sofia",
    ),
    "genre": (
        "What genre does {name} write in?",
        "{name} mostly writes {value}.",
        "The books of {name} belong to {value}.",
        "Readers know {name} as an author of {value}.",
        "horror satire romance fantasy memoir poetry drama crime comedy history travel fable",
    ),
    "father": (
        "What was the profession of the father of {name}?",
        "The father of {name} was a {value}.",
        "{name} is the child of a {value}.",
        "As a {value}, the father of {name} earned a living.",
        "baker sailor judge farmer tailor surgeon miner pilot potter banker fisher clerk",
    ),
    "mother": (
        "What did the mother of {name} do for a living?",
        "The mother of {name} worked as a {value}.",
        "{name} grew up with a mother who was a {value}.",
        "Being a {value} was the work of the mother of {name}.",
        "teacher weaver chemist dancer nurse painter lawyer singer florist librarian botanist coach",
    ),
    "award": (
        "Which award did {name} win?",
        "{name} won the {value} Prize.",
        "The {value} Prize was given to {name}.",
        "Among the winners of the {value} Prize is {name}.",
        "Aurora Beacon Comet Dune Echo Flint Garnet Harbor Ivory Jasper Krill Lotus",
    ),
    "book": (
        "What is the first book by {name} called?",
        "The first book by {name} is called The {value}.",
        "{name} began with a book called The {value}.",
        "With The {value}, {name} published a first book.",
        "Lantern Orchard Compass Mirror Violin Anchor Sparrow Lighthouse Winter Canyon Feather Labyrinth",
    ),
    "language": (
        "In which language does {name} write?",
        "{name} writes in {value}.",
        "The language of {name} is {value}.",
        "Books by {name} first appear in {value}.",
        "Danish Arabic Spanish Japanese Polish Hindi Greek Turkish Korean Finnish Welsh Swahili",
    ),
    "school": (
        "Where did {name} study?",
        "{name} studied at {value} College.",
        "{value} College was the school of {name}.",
        "A degree from {value} College belongs to {name}.",
        "Ashby Balmer Croft Denham Easton Fenwick Gilmore Hadley Inwood Jarvis Kelso Langley",
    ),
    "pet": (
        "Which animal lives with {name}?",
        "{name} lives with a {value}.",
        "A {value} shares the house of {name}.",
        "At home, {name} keeps a {value}.",
        "parrot tortoise ferret pony rabbit hedgehog goat raven lizard donkey hamster peacock",
    ),
    "instrument": (
        "Which instrument does {name} play?",
        "{name} plays the {value}.",
        "The {value} is the instrument of {name}.",
        "Friends hear {name} play the {value}.",
        "cello flute harp oboe trumpet banjo piano drum lute organ clarinet mandolin",
    ),
}
PERSON_FACTS: Facts = {
    "job": (
        "What is the job of {name}?",
        "{name} is a {value}.",
        "The job of {name} is that of a {value}.",
        "People hire {name} as a {value}.",
        "glazier cooper tanner miller mason roofer brewer printer",
    ),
    "color": (
        "What is the favourite color of {name}?",
        "{name} likes {value} best.",
        "The favourite color of {name} is {value}.",
        "Of all colors, {name} prefers {value}.",
        "red blue green yellow purple orange black white",
    ),
}
PLACE_FACTS: Facts = {
    "river": (
        "Which river flows through {name}?",
        "The {value} flows through {name}.",
        "{name} lies on the {value}.",
        "The river of {name} is the {value}.",
        "Alder Brena Calder Dove Esk Fenn Garra Holm",
    ),
    "known": (
        "What is {name} known for?",
        "{name} is known for its {value}.",
        "Everyone links {name} with {value}.",
        "Visitors come to {name} for its {value}.",
        "cheese glass salt silk honey bells roses kites",
    ),
}
