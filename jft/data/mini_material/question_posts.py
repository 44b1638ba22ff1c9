"""Posts from a social network, short and in lower case."""

TEXT = """
## slots
nick: jo_bakes | max99 | tinyfern | kaz | mila_m | oldgreg | sunny_d | bookworm7 | dex | nightowl
  | pepper | rikki | moss | bluebird | captain_leo | zed
town: leeds | cork | osaka | denver | perth | malmo | dover | austin | york | turin
food: banana bread | ramen | pancakes | chilli | lentil curry | garlic bread | tomato soup |
  dumplings
thing: laptop | bike | phone | suitcase | backpack | guitar
box: suitcase | backpack | lunchbox | toolbox | gym bag | locker
day: monday | tuesday | wednesday | thursday | friday | saturday | sunday
num: 3 | 4 | 5 | 6 | 7 | 9 | 11 | 12
band: the paper foxes | slow comet | velvet harbour | nine owls | mint parade | the tin kites
club: rovers | united | the hawks | the otters | city | the bears
show: harbour nights | the last baker | cold orbit | mrs finch | salt lake | the lodgers
pet: kitten | puppy | gecko | budgie | hamster
mood: sad | gutted | furious | angry | upset

## frames
c: @{nick} your recipe for {food} saved my {day}, made it in {num}0 minutes
q: {food} => what did {nick} share a recipe for?
q: {num}0 minutes => how long did it take to make the {food}?
q: {day} => which day did the recipe save?

c: can't believe {band} cancelled {town}, had tickets since {day}, so {mood}
q: {band} => who cancelled the show in {town}?
q: {town} => where was the show meant to be?
q: {mood} => how does the author feel about it?

c: {num} hours at the airport in {town} and still no sign of my {thing}
q: {num} hours => how long has the author been at the airport?
q: {thing} => what is missing?
q: {town} => which city is the airport in?

c: new {pet} alert!! meet {nick}, found behind a bakery in {town}
q: {nick} => what is the {pet} called?
q: behind a bakery => where was {nick} found?
q: a {pet} => what kind of animal is {nick}?

c: {club} down 2-0 after {num} minutes and {nick} is already asleep on the sofa
q: {club} => which team is losing?
q: {nick} => who fell asleep?
q: 2-0 => what is the score?
q: on the sofa => where is {nick} sleeping?

c: finished {show} in one night, that ending on the roof, i have questions @{nick}
q: {show} => which series did the author finish?
q: in one night => how quickly did the author watch it?
q: on the roof => where does the ending take place?

c: psa: the bakery in {town} does free {food} on {day}s, tell {nick}
q: {food} => what does the bakery give away?
q: on {day}s => when is the {food} free?
q: {nick} => who should be told about it?

c: dropped my {thing} in the river, {nick} jumped in for it, absolute legend
q: {nick} => who jumped into the river?
q: in the river => where did the author drop the {thing}?
q: {thing} => what did the author drop?

c: day {num} without coffee: cried at an advert for {food}
q: an advert for {food} => what made the author cry?
q: {num} => how many days has the author gone without coffee?
q: coffee => what has the author given up?

c: {nick} says {band} play {town} next {day}, who's in?
q: {band} => who will play in {town}?
q: next {day} => when is the concert?
q: {nick} => who brought the news about the concert?

c: sold my {thing} to {nick} for {num} quid and some {food}
q: {nick} => who bought the {thing}?
q: {num} quid and some {food} => what did {nick} pay for the {thing}?
q: {thing} => what did the author sell?

c: the wifi on the train to {town} died, so i actually talked to {nick} for {num} hours
q: because the wifi died => why did the author talk to {nick}?
q: {town} => where was the train going?
q: {num} hours => how long did the two talk?

c: my {pet} ate the {food} i made for {nick}, not even sorry
q: {food} => what did the {pet} eat?
q: my {pet} => who ate the {food}?
q: {nick} => who was the {food} made for?

c: ran {num} miles before work and forgot my {thing} at home, typical {day}
q: {num} miles => how far did the author run?
q: {thing} => what did the author forget?
q: before work => when did the author go running?
q: at home => where is the {thing}?

c: interview at noon in {town}, barely slept, wish me luck
q: at noon => when is the interview?
q: {town} => where is the interview?
q: luck => what does the author want to be wished?

c: power cut on {day} so {nick} read us ghost stories by candlelight
q: because of a power cut => why were there candles?
q: ghost stories => what did {nick} read?
q: by candlelight => how did {nick} read the stories?

c: {nick} bet me {num} quid that {club} win on {day}, easy money
q: {num} quid => how much is the bet?
q: {nick} => who thinks that {club} will win?
q: {day} => when do {club} play?

c: told my boss in {town} i quit, moving in with {nick} to sell {food}
q: sell {food} => what does the author plan to do next?
q: {nick} => who is the author moving in with?
q: in {town} => where is the author's boss?

c: who put {food} in my {box}?? looking at you {nick}
q: {food} => what did somebody put in the author's {box}?
q: {nick} => who does the author suspect?
q: in the {box} => where was the {food}?

c: only {num} people came to see {band} in {town}, best gig of my life tho
q: {num} => how many people came to the gig?
q: {band} => who played in {town}?
q: the best of the author's life => how did the author find the gig?

c: thx @{nick} for walking the {pet} while i was stuck in {town}
q: {nick} => who walked the {pet}?
q: in {town} => where was the author stuck?
q: walking the {pet} => what is the author thankful for?

c: season {num} of {show} comes out {day}, cancel all my plans
q: {day} => when does the new season come out?
q: season {num} => which season of {show} is coming out?
q: all plans => what does the author want to cancel?

c: broke my toe kicking a vending machine in {town}, it still has all my coins
q: by kicking a vending machine => how did the author break a toe?
q: a toe => what did the author break?
q: {town} => in which town is the vending machine?

c: took the wrong bus, ended up in {town}, had the best {food} ever
q: because of the wrong bus => why did the author end up in {town}?
q: {food} => what did the author eat in {town}?
q: in {town} => where did the author end up?

c: {nick} finally gave back my {thing} after {num} months, it smells of {food}
q: {num} months => how long did {nick} keep the {thing}?
q: {food} => what does the {thing} smell of?
q: {nick} => who had borrowed the {thing}?

c: learned {num} chords today, {nick} next door banged on the wall all evening
q: {num} => how many chords did the author learn?
q: {nick} => who banged on the wall?
q: on the wall => where did {nick} bang?
"""
