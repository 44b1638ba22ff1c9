"""Everyday scenes with people, shops and journeys."""

TEXT = """
## slots
name: Ada/she/her/her | Bruno/he/him/his | Celia/she/her/her | Dario/he/him/his | Elsa/she/her/her
  | Felix/he/him/his | Gina/she/her/her | Hugo/he/him/his | Irma/she/her/her | Joel/he/him/his |
  Kira/she/her/her | Lars/he/him/his | Mona/she/her/her | Noah/he/him/his | Petra/she/her/her |
  Ravi/he/him/his | Sana/she/her/her | Tomas/he/him/his | Uma/she/her/her | Vera/she/her/her
kin: brother/he | sister/she | cousin/she | uncle/he | aunt/she | neighbour/he | nephew/he |
  niece/she
shop: chemist | butcher | baker | florist | hardware shop | toy shop | bookshop | fishmonger
item: lamp | kettle | jacket | suitcase | clock | mirror | drum | carpet | camera | radio
flower: tulips | roses | lilies | daisies | orchids | carnations
fruit: apples | pears | plums | cherries | peaches | figs | apricots
late: eight | nine | ten | half past nine | half past ten
early: three | four | half past four | five
day: Monday | Tuesday | Wednesday | Thursday | Friday | Saturday
town: the coast | the capital | the mountains | the village | the airport | the lake
six: six | half past six | seven
five: five | six | seven
few: two | three | four
many: eight | nine | eleven | twelve
vet: dentist | optician | barber | tailor | notary | doctor
veh: bus | train | coach | shuttle bus
dev: lamp | kettle | clock | camera | radio | toaster | fan
shore: the coast | the lake | the bay | the river
grocer: corner shop | supermarket | farm shop | kiosk | health food shop | delicatessen
dish: soup | stew | curry | pie | omelette | lasagne

## frames
h: {name1} got home before {six}.
d: {name1} was not home by {six}.
e: {name1} came home at {early}, cooked for {name1.3} {kin} and was asleep on the sofa at {six}.
e: at {six}, {name1.3} {kin} called and {name1}, home since {early}, picked up the phone in the
  kitchen.
c: {name1} was still in a queue at the {shop} at {six} and did not get home until {late}.
c: at {six}, {name1} was stuck on the {veh}, and {name1.1} only reached home at {late}.
n: {name1} left the {shop} at {early} and went home by way of {name1.3} {kin}'s flat.
n: {name1}'s {kin} wanted {name1.2} home before {six}, so {name1.1} left the {shop} in a hurry.

h: {name1} bought the {item}.
d: {name1} did not buy the {item}.
e: {name1} haggled over the {item} for half an hour, paid and carried it out to the car.
e: although {name1.3} {kin} thought it too dear, {name1} paid for the {item} and took it home.
c: {name1} haggled over the {item} for half an hour and then left the shop with nothing.
c: {name1.3} {kin} thought it too dear, so {name1} put the {item} back and bought nothing.
n: {name1} haggled over the {item} for half an hour until the owner came down by a third.
n: {name1.3} {kin} thought the {item} too dear, but {name1} took out a purse to count the money.

h: the {shop} was open when {name1} came.
d: the {shop} was closed when {name1} came.
e: when {name1} came to the {shop} on {day}, {name1.1} was served at once, although it was past
  {six}.
c: when {name1} came to the {shop} on {day}, the door was locked and a sign said "back tomorrow".
n: {name1} came to the {shop} on {day} with a long list and {name1.3} {kin}'s basket.
n: whenever {name1} comes to the {shop}, {name1.1} looks at the sign on the door first.

h: {name1} gave the {flower} to {name1.3} {kin}.
d: someone other than {name1.3} {kin} got the {flower} from {name1}.
e: {name1}'s {kin} had been ill and was given the {flower} that {name1} had bought.
c: {name1}'s {kin} is allergic, so {name1} gave the {flower} to {name2} instead.
n: {name1}'s {kin} had been ill, so {name1} bought {flower} and wrote a card.

h: {name1} paid in cash.
d: {name1} did not use cash.
e: {name1} handed over coins and a note at the {shop}, since the card reader was broken.
e: {name1}'s card stayed in {name1.3} pocket: {name1.1} counted out coins for the {item}.
c: {name1} had coins and notes, but paid for the shopping by card at the {shop}.
c: at the {shop}, {name1} paid for everything with {name1.3} phone, as {name1.1} always does.
n: {name1} had coins, notes and a card with {name1.2} and paid for the {item} at once.
n: at the {shop}, {name1} paid for everything and asked {name2} for a bag.

h: {name1} owns more than {five} umbrellas.
d: {name1} has no more than {five} umbrellas.
e: {name1} counted {name1.3} umbrellas and found {many}, some of them never used.
c: {name1} counted {name1.3} umbrellas and found only {few}, since {name2} had lost the others.
n: {name1} lost {few} umbrellas on the {veh} this year and still has some at home.

h: {name1} travelled to {town} by {veh}.
d: {name1} did not take the {veh} to {town}.
e: {name1} slept on the {veh} all the way to {town} and woke up when it stopped there.
c: {name1} missed the {veh} and drove all the way to {town} in {name2}'s car.
n: {name1} looked up the {veh} to {town}, and {name1.1} was there on {day} for lunch.

h: {name1} liked the {dish}.
d: the {dish} was not to {name1}'s taste.
e: {name1} asked for a third plate of the {dish} and begged {name2} for the recipe.
e: "nobody makes {dish} this good," said {name1} truthfully, and finished {name2}'s plate as well.
c: {name1} pushed the {dish} away after one spoonful, pulled a face and ordered bread.
c: {name1} told {name2} truthfully that the {dish} was the worst meal of {name1.3} life.
n: {name1} finished a plate of the {dish} while {name2} talked about the recipe.
n: {name1} told {name2} politely that the {dish} was hot and ate it with bread.

h: {name1} has an appointment on {day1}.
d: {name1} has no appointment on {day1}.
e: {name1} must leave work early on {day1}, because the {vet} can only see {name1.2} that day.
c: {name1} is free all {day1}, since the {vet} moved {name1.3} only appointment to {day2}.
n: {name1} rang the {vet}, who has free appointments on {day1} and on {day2}.

h: the {fruit} were free.
d: {name1} was charged for the {fruit}.
e: {name1} tried to pay for the {fruit}, but the farmer shook her head and gave them away.
c: {name1} tried to get the {fruit} for nothing, but the farmer made {name1.2} pay the full price.
n: {name1} asked the farmer about the {fruit} and went home with a full bag.

h: {name1} is taller than {name2}.
d: {name1} is not as tall as {name2}.
e: {name2} needs a chair for the top shelf, which {name1}, a head taller, reaches with ease.
c: {name1} needs a chair for the top shelf, which {name2}, a head taller, reaches with ease.
n: {name1} needs a chair for the top shelf, and so does {name2}, who put the jam there.

h: it rained on {day}.
d: {day} was dry.
e: {name1} walked to the {shop} on {day} and came back with wet shoes after the downpour.
c: {name1} walked to the {shop} on {day}, a day without a cloud or a drop of rain.
n: {name1} walked to the {shop} on {day} with an umbrella that {name1.1} had borrowed from
  {name2}.

h: {name1} repaired the {dev} alone.
d: {name1} had help with the {dev}.
e: nobody helped {name1}: {name1.1} took the broken {dev} apart and had it working by {six}.
c: with {name2} holding the parts, {name1} took the broken {dev} apart and had it working by
  {six}.
n: by {six} the broken {dev} was working again, and {name1} washed {name1.3} hands.

h: {name1} has met {name2}'s {kin}.
d: {name1} has never met {name2}'s {kin}.
e: {name1} and {name2}'s {kin} met on the {veh} on {day} and talked for hours.
c: {name1} knows {name2} well but has yet to meet {name2}'s {kin}, who lives near {town}.
n: {name1} talked for hours on {day} about {name2}'s {kin}, who lives near {town}.

h: {name1} sold the {item} for a profit.
d: {name1} made no profit on the {item}.
e: the {item} that {name1} had bought for {few} coins went to {name2} for {many}.
c: the {item} that {name1} had bought for {many} coins went to {name2} for {few}.
n: {name1} bought the {item} for {many} coins and sold it to {name2} on {day}.

h: everyone on the {veh} had a seat.
d: some people on the {veh} had no seat.
e: the {veh} to {town} was half empty, and even {name1}, the last to get on, could sit down.
c: the {veh} to {town} was so full that {name1} and {few} others had to stand.
n: the {veh} to {town} was late, but {name1} found a seat beside {name2}.

h: {name1} remembered {name2}'s birthday.
d: {name1} forgot {name2}'s birthday.
e: {name1} rang at {late} on {name2}'s birthday to wish {name2.2} well.
c: {name2}'s birthday went by without a word from {name1}, who had it down for {day}.
n: {name1} met {name2} at the {shop} on the day after {name2}'s birthday.

h: {name1}'s {kin} cannot swim.
d: {name1}'s {kin} is able to swim.
e: {name1}'s {kin} never learned to swim and stays on the beach whenever they go to {shore}.
c: {name1}'s {kin} swims to the island and back whenever they go to {shore}.
n: {name1}'s {kin} stays on the beach with a book whenever they go to {shore}.

h: the {item} was a present.
d: nobody gave {name1} the {item}.
e: {name1} got the {item} from {name2}, who had wrapped it in red paper for {name1.3} birthday.
c: {name1} got the {item} at the market and paid for it with money that {name1.1} had saved.
n: {name1} keeps the {item} on a shelf next to a picture of {name2} in a red frame.

h: {name1} speaks with {name2} often.
d: {name1} and {name2} seldom speak.
e: hardly an evening goes by without a long call between {name1} and {name2}.
c: apart from a short call at New Year, {name1} and {name2} have not talked for ages.
n: {name1} and {name2} live near {town}, {few} streets apart, and use the same {shop}.

h: {name1} lost the keys before lunch.
d: {name1} still had the keys at lunch.
e: {name1} had to skip lunch to look for the keys, which had fallen out on the {veh}.
c: {name1} laid the keys beside {name1.3} plate at lunch and lost them later on the {veh}.
n: {name1} lost the keys on {day}, perhaps on the {veh}, perhaps at the {shop}.

h: the market is cheaper than the {grocer}.
d: the market is not cheaper than the {grocer}.
e: {name1} pays {few} coins for {fruit} at the market and {many} for the same at the {grocer}.
c: {name1} pays {many} coins for {fruit} at the market and {few} for the same at the {grocer}.
n: {name1} buys {few} bags of {fruit} at the market and {many} at the {grocer}, which is nearer.

h: {name1} finished the book.
d: {name1} has not finished the book.
e: {name1} read the last page on the {veh} on {day} and lent the book to {name2}.
c: {name1} left the book on the {veh} with a hundred pages still to go.
n: {name1} lent the book to {name2}, who read a hundred pages of it on the {veh}.

h: {name1} was alone in the house.
d: {name1} was not alone in the house.
e: with {name2} away near {town} and nobody else at home, {name1} heard the {dev} fall.
c: {name1} and {name2} were both in the kitchen at home when they heard the {dev} fall.
n: {name1} was at home upstairs when {name1.1} heard the {dev} fall, and called {name2}'s name.

h: {name1} has a pet.
d: {name1} keeps no animals.
e: {name1} hurried home from the {shop} to feed the cat that {name1.1} has had for {many} years.
c: {name1} has never had an animal at home, although {name2} offered {name1.2} a cat.
n: {name1} hurried home from the {shop} with a bag of cat food that {name2} had ordered.

h: {name1} went to the {shop} because of {name2}.
d: {name1}'s visit to the {shop} had nothing to do with {name2}.
e: {name1} would have stayed in on {day}, but {name2} begged {name1.2} to go to the {shop}.
c: {name1} went to the {shop} for a reason of {name1.3} own and without a word to or from {name2}.
n: {name1} went to the {shop} on {day}, and {name2} stayed in to wait for a parcel.

h: {name1} was the first in the queue.
d: somebody stood ahead of {name1} in the queue.
e: when the {shop} opened, {name1}, with the whole queue behind {name1.2}, was let in before all
  others.
c: when the {shop} opened, {name1} let {name2} and {few} more go in, since they had queued longer.
n: when the {shop} opened, {name1} and {name2} had been in the queue since {early}.
"""
