"""Short questions that people type into a search box."""

TEXT = """
## slots
lang: Spanish | Polish | Greek | Turkish | Danish | Korean | Welsh | Czech | Finnish | Arabic
unit: miles/kilometres | pounds/kilograms | inches/centimetres | ounces/grams | gallons/litres |
  acres/hectares
fat: butter | margarine | olive oil | coconut oil | lard | ghee
flour: rye flour | oat flour | spelt flour | corn flour | rice flour | wheat flour
city: Lisbon | Vienna | Prague | Dublin | Oslo | Naples | Zurich | Krakow | Ghent | Porto
file: PDF | Word file | spreadsheet | text file | web page | slide deck
dev: phone | laptop | tablet | desktop | old computer | work computer
pet: cat | dog | rabbit | hamster | parrot | ferret
sport: running | swimming | cycling | rowing | yoga | climbing | hiking | boxing
food: lentils | beans | potatoes | oats | chickpeas | carrots | peas
room: kitchen | bathroom | bedroom | hallway | cellar | attic
stain: wine | coffee | ink | grass | mud | tea
cloth: wool | silk | linen | denim | suede | velvet

## frames
~: lang1 lang2
=: how do I translate from {lang1} into {lang2}?
=: what is the best way to turn {lang1} text into {lang2}?
=: how can I get a {lang2} version of {a lang1} text?

~: unit unit.1
=: how do I convert {unit} to {unit.1}?
=: what is the rule for turning {unit} into {unit.1}?
=: if I know the {unit}, how do I work out the {unit.1}?

~: fat1 fat2
=: can I use {fat1} instead of {fat2} for frying?
=: is {fat1} a good substitute for {fat2} when frying?
=: I have no {fat2}; will {fat1} do for frying?

~: flour1 flour2
=: why is {flour1} heavier than {flour2}?
=: what makes {flour2} lighter than {flour1}?
=: why does {flour2} weigh less than {flour1}?

~: city1 city2
=: how long is the train ride from {city1} to {city2}?
=: how many hours does it take to reach {city2} from {city1} by train?
=: starting in {city1}, when would a train get me to {city2}?

~: city1 city2
=: is it cheaper to live in {city1} than in {city2}?
=: does {city2} cost more to live in than {city1}?
=: are living costs in {city1} lower than in {city2}?

~: file1 file2
=: how do I turn {a file1} into {a file2}?
=: what program changes {a file1} to {a file2}?
=: is there an easy way to make {a file2} out of {a file1}?

~: dev1 dev2
=: how do I copy photos from my {dev1} to my {dev2}?
=: what is the quickest way to get pictures onto my {dev2} from my {dev1}?
=: how can I put the photos on my {dev1} on my {dev2} as well?

~: pet1 pet2
=: what can I do if my {pet1} is afraid of my {pet2}?
=: how do I stop my {pet2} from scaring my {pet1}?
=: my {pet2} frightens my {pet1}; what should I do?

~: pet1 pet2
=: will {a pet1} eat food made for {a pet2}?
=: can you feed {pet2} food to {a pet1}?
=: is it fine if {a pet1} gets the food of {a pet2}?

=: should I do {sport1} before or after {sport2}?
=: which comes first in a workout, {sport1} or {sport2}?
=: in one workout, is it better to start with {sport1} or with {sport2}?
x: should I do {sport1} or {sport2} before work?
x: which is better in a workout, {sport1} or {sport2}?
x: in one week, is it better to do more {sport1} or more {sport2}?

~: sport1 sport2
=: does {sport1} burn more calories than {sport2}?
=: do you use less energy in {sport2} than in {sport1}?
=: is {sport1} better than {sport2} for burning calories?

=: are {food1} as filling as {food2}?
=: do {food1} keep you full as long as {food2} do?
=: will {food1} fill me up as well as {food2}?
x: are {food1} filling, and how do I cook {food2}?
x: do {food1} keep as long as {food2} do?
x: will {food1} cost me as much as {food2}?

~: room1 room2
=: can I move the boiler from the {room1} to the {room2}?
=: is it possible to take the boiler out of the {room1} and put it in the {room2}?
=: could the {room2} house the boiler that is now in the {room1}?

~: stain1 stain2
=: is {stain1} harder to wash out than {stain2}?
=: does {stain2} come out in the wash more easily than {stain1}?
=: are {stain2} stains easier to remove than {stain1} stains?

~: cloth1 cloth2
=: how can I sew a {cloth1} patch onto {cloth2}?
=: what is the best way to mend {cloth2} with a piece of {cloth1}?
=: is there a good stitch for putting a patch of {cloth1} on {cloth2}?

=: how do I get {stain} out of {cloth}?
=: what removes {stain} stains from {cloth}?
=: my {cloth} shirt has {a stain} stain; how do I clean it?
x: how do I get {cloth} that is the colour of {stain}?
x: what kind of {cloth} hides {stain} stains?
x: my {cloth} shirt has a {stain} print; where do I buy another?

=: why does my {pet} not eat {food}?
=: what is the reason that my {pet} refuses {food}?
=: my {pet} will not touch {food}; why is that?
x: why should my {pet} not eat {food}?
x: what is the reason that {food} can harm my {pet}?
x: my {pet} must not touch {food}; why is that?

=: can I learn {lang} without a teacher?
=: is it possible to teach yourself {lang}?
=: can somebody pick up {lang} on their own?
x: can I teach {lang} without a degree?
x: is it possible to become a teacher of {lang}?
x: can somebody correct my {lang} on their own time?

=: how soon after a meal may I go {sport}?
=: how long should I wait between eating and {sport}?
=: what is the right gap between food and {sport}?
x: how soon after {sport} may I have a meal?
x: how long should I wait between {sport} and eating?
x: what is the right food before {sport}?

=: do I need a visa for {city} if I only change trains there?
=: is a visa required just to change trains in {city}?
=: can I switch trains in {city} without a visa?
x: do I need to change trains if I pick up a visa in {city}?
x: is a visa required just to work on trains in {city}?
x: can I get a visa in {city} without taking the train?

=: who first grew {food} in Europe?
=: which people were the first in Europe to grow {food}?
=: by whom were {food} first farmed in Europe?
x: who grew the most {food} in Europe?
x: which people in Europe were the first to give up {food}?
x: by whom are {food} now farmed in Europe?

=: is it safe to leave my {dev} charging overnight?
=: can my {dev} stay plugged in all night without danger?
=: does charging {a dev} through the night cause any risk?
x: is it safe to leave my {dev} in the car overnight?
x: can my {dev} stay unplugged all night without going flat?
x: does charging {a dev} through the night cost much?

=: how do I keep damp out of my {room}?
=: what stops {a room} from getting damp?
=: how can I prevent moisture in the {room}?
x: how do I keep my {room} from getting cold?
x: what stops damp {room} walls from drying?
x: how can I keep some moisture in the air of the {room}?

=: how much does it cost to retile {a room}?
=: what is the price of new tiles for {a room}?
=: what would I pay to have my {room} tiled again?
x: how much time does it take to retile {a room}?
x: what is the size of the usual tiles for {a room}?
x: what would I be paid to tile {a room}?

~: lang1 lang2
=: is {lang1} harder to learn than {lang2}?
=: do people pick up {lang2} more easily than {lang1}?
=: does learning {lang1} take more effort than learning {lang2}?
x: is {lang1} more widely spoken than {lang2}?
x: do people in Spain study {lang2} more often than {lang1}?
x: which is the older language, {lang2} or {lang1}?
"""
