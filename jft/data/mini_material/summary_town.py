"""Local news from small towns."""

TEXT = """
## slots
town: Ashcombe | Birkfield | Colder Bay | Dunmoor | Elmsworth | Farrow Hill | Greyford | Hollin
  Bridge | Inverlyn | Kestle | Marrowby | Netherton | Orlsea | Pennick
who: Margaret Hale/she | Tom Arkwright/he | Priya Nair/she | George Odell/he | Lucy Brandt/she |
  Samuel Ojo/he | Ellen Marsh/she | Daniel Frost/he | Aisha Khan/she | Peter Lindqvist/he | Rosa
  Delgado/she | William Tate/he
num: 12 | 15 | 18 | 24 | 30 | 36 | 40 | 45 | 60
big: 20,000 | 35,000 | 48,000 | 60,000 | 75,000 | 90,000
year: 1874 | 1888 | 1902 | 1911 | 1926 | 1934 | 1951
month: January | March | April | May | June | September | October | November
day: Monday | Tuesday | Wednesday | Thursday | Friday | Saturday
street: Mill Lane | Station Road | Church Street | Harbour Row | Orchard Way | Castle Street
animal: swans | otters | bats | hedgehogs | barn owls | herons
school: St Anne's School | Riverside School | Oakfield School | the grammar school | Hilltop
  School
weather: heavy rain | a cold wind | thick fog | a sudden hailstorm
gale: a gale | a storm | the high wind | a whirlwind
few: three | four | five | six | seven
span: 24 | 28 | 31 | 36 | 42

## frames
l: Shoppers on {street} in {town} were still asking on {day} what had happened overnight.
k: A burst pipe beneath the old bank sent water into {num} cellars before engineers could reach
  the valve.
d: The firefighters pumped until noon and carried furniture to the market square.
d: {who}, who runs a bakery there, lost all the flour for the weekend.
d: The water company has promised to pay for the damage.
d: Buses used another route until the evening.
s: {num} cellars in {town} were flooded after a pipe burst under {street}.
s: Burst pipe floods {num} cellars on {street} in {town}.

l: For years, parents in {town} have asked for a safer way to {school}.
k: On {day} the council agreed to close {street} to cars each morning, at first for a trial of six
  months.
d: Delivery vans may enter before seven, and residents will receive a pass.
d: Some shopkeepers fear that they will lose customers.
d: {who}, whose son was hurt there in {month}, wept when the vote was read out.
d: Cameras will be put up at both ends.
s: {town} will ban morning traffic from {street} for six months to protect pupils.
s: Cars are to be kept off {street} in {town} in the mornings to make the way to school safer.

l: {who} was looking for a lost earring in a garden in {town} when the spade struck something
  hard.
k: What lay under the vegetables was a pot with {num} silver coins, which experts at the county
  museum date to {year}.
d: The garden has belonged to the same family for three generations.
d: A coroner must now decide who owns the find.
d: Neighbours have since borrowed every metal detector in the area.
d: The museum hopes to show the pot from {month}.
s: A gardener in {town} has dug up {num} silver coins from {year}.
s: {num} old silver coins were found in a garden in {town}.

l: The bells of {town} rang for an hour on {day}, and nobody minded.
k: After {num} months of repairs to a roof torn open by a storm, the parish church has opened its
  doors again.
d: Rain had soaked the organ and ruined the carpets.
d: Repairs cost {big} crowns, most of it given by local people.
d: {who}, aged 91, was the first to walk in.
d: The organ itself will not be ready before {month}.
s: The church in {town} has reopened {num} months after storm damage closed it.
s: Following {num} months of roof repairs, worshippers in {town} are back in their church.

l: It was {weather} that nearly spoiled the day, the organisers said.
k: All the same, {num} teams rowed from the weir to the harbour in {town} and raised {big} crowns
  for the lifeboat.
d: The crew from {school} finished first, in a boat built out of doors and barrels.
d: {who} fell in twice and was cheered each time.
d: A new engine for the lifeboat has been needed since {month}.
d: Next year the race may be held in summer.
s: A boat race in {town} has brought in {big} crowns for the lifeboat.
s: {num} teams raised {big} crowns for the lifeboat at {town} in a rowing race.

l: The sign over the door on {street} in {town} says {year}, and the shelves have hardly changed
  since.
k: In {month}, however, {who} will lock up the ironmonger's for the last time, because nobody
  wants to take over.
d: Customers could buy a single screw there and get advice for nothing.
d: A large store opened on the edge of town three years ago.
d: The building is to become flats.
d: Its brass till has been promised to the museum.
s: The ironmonger's in {town}, open since {year}, will close in {month}.
s: An old hardware shop on {street} shuts in {month} for want of a successor.

l: A dozen people stood silently by the canal in {town} at dawn on {day}.
k: They had come to see the {animal}, which have returned to breed for the first time in {num}
  years.
d: Cleaner water and a new hedge are thought to be the reason.
d: {who} of the nature society counted at least four young.
d: Dog owners are asked to keep to the other bank.
d: A camera will be set up in {month}.
s: {animal} are breeding in {town} again after an absence of {num} years.
s: After {num} years, {animal} have come back to the canal in {town} to breed.

l: Nobody on the 7.40 train to {town} expected to spend the morning in a field.
k: A tree brought down by {gale} had blocked the line, and {num} passengers were led to a farm on
  foot.
d: The farmer served tea until buses came at noon.
d: {who} missed an interview but was offered the job by telephone.
d: The driver, who had braked in time, was praised by all.
d: Trains ran again from {day} evening.
s: {num} train passengers were stranded near {town} when a fallen tree blocked the line.
s: A fallen tree stopped a train outside {town} and forced {num} people off it.

l: There was cake at the library in {town} on {day}, and there were also a few tears.
k: {who}, the librarian, has retired after {span} years in which no book was ever lent without a
  kind word.
d: Children from {school} had painted a card as tall as the door.
d: The post will not be filled before {month}.
d: Volunteers will keep the library open until then.
d: A reading room is to carry the name of the librarian.
s: {who}, the librarian of {town}, has retired after {span} years.
s: {town} said farewell to its librarian of {span} years, {who}.

l: Two hundred people filled the hall of {school} on {day}, and most of them were angry.
k: They heard that the clinic on {street} in {town} will lose its night service in {month}, since
  {num} posts cannot be filled.
d: The nearest hospital is forty minutes away by car.
d: A petition was signed by almost everyone who came.
d: {who}, a nurse, said that the staff had been told by e-mail.
d: A spokesman for the health service promised more ambulances.
s: Night care at the clinic in {town} ends in {month} for lack of staff.
s: Staff shortages will end the night service of the clinic in {town}.

l: When the tide went out on {day}, children in {town} saw ribs of black oak in the sand.
k: Divers have now confirmed that they belong to the Good Hope, a fishing boat that sank in
  {year}.
d: Its crew of five were thought to have drifted far out to sea.
d: {who}, whose great-grandfather was on board, laid flowers on the beach.
d: It was probably {gale} in {month} that moved the sand.
d: The wreck will be left where it is.
s: A wreck found on the beach at {town} is a fishing boat lost in {year}.
s: Divers have identified a wreck near {town} as a boat that sank in {year}.

l: {who} says the idea came from a broken toaster.
k: On {street} in {town}, {num} volunteers have opened a workshop where anybody can have things
  mended free of charge.
d: On the first {day}, the queue reached the bus stop.
d: Radios, lamps and teddy bears were the most common patients.
d: The council has paid the rent until {month}.
d: Those who want to learn to mend things themselves are welcome too.
s: Volunteers in {town} now repair broken things for nothing in a new workshop.
s: A free repair workshop run by {num} volunteers has opened in {town}.

l: The noise began at four in the morning, residents of {street} in {town} told this newspaper.
k: By {day} evening, {who}, who had let {few} cockerels live in a flat, had been ordered by a
  court to give them up.
d: The birds will go to a farm outside {town}.
d: Their owner argued that they were better than any alarm clock.
d: The neighbours had kept a diary of the crowing since {month}.
d: No fine was imposed.
s: A court has told {who} of {town} to part with {few} noisy cockerels.
s: {few} cockerels must leave a flat in {town} after complaints about noise.

l: A small brown envelope was pushed through the door of {school} on {day}.
k: Inside were {big} crowns in notes and a letter from a former pupil, without a name, who wants
  the money used for music lessons.
d: The writer still remembers a kind teacher.
d: {who}, the head, thought at first that it was a joke.
d: {num} children in {town} are waiting for a place in the orchestra.
d: Lessons are to begin in {month}.
s: A former pupil has secretly given {school} {big} crowns for music lessons.
s: An unknown donor left {big} crowns at {school} to pay for music lessons.

l: The old footbridge in {town} creaks, and generations of couples have hung padlocks on it.
k: Engineers found {num} cracks in it in {month} and say that it has to be pulled down.
d: A replacement would cost {big} crowns, which the council has not got.
d: Walkers must go round by {street}, half a mile longer.
d: {who} got engaged there and hopes to keep a plank.
d: The padlocks will be melted down for a sculpture.
s: The footbridge in {town} must be demolished because of cracks.
s: Because it is cracked, {town} is going to lose its old footbridge.

l: {who} had never entered a competition before this spring.
k: Yet a marrow weighing {num} kilograms, grown behind a shed on {street}, beat all rivals at the
  {town} show.
d: The secret, according to the winner, is cold tea and a radio.
d: The runner-up asked for the scales to be checked, and they were correct.
d: Part of it will be served at {school}.
d: The record for the show was set in {year}.
s: A beginner's marrow of {num} kilograms won the {town} show.
s: {who} took first prize in {town} with a marrow of {num} kilograms.

l: Lights went out across {town} at half past six on {day}, in the middle of supper.
k: Investigators blame a fox that climbed into the substation on {street} and left {num}00 homes
  without power for three hours.
d: The animal did not survive the short circuit.
d: At {school}, a concert went on by the light of telephones.
d: {who} delivered a baby by torchlight, and mother and child are well.
d: A new fence will be finished in {month}.
s: A fox in a substation cut off the power in {town} for three hours.
s: {num}00 homes in {town} went dark because a fox got into a substation.

l: Sheep used to graze on the slope above {town}, where the wind hardly ever drops.
k: From {month}, {num} turbines will stand there, now that the county has turned down the last
  objection.
d: They should supply about half of the homes below.
d: {who}, who led the protest, called it a sad day for walkers.
d: Each household on {street} will get cheaper power for ten years.
d: The grazing may continue between the towers.
s: {num} wind turbines may now be built above {town}.
s: The county has cleared the way for {num} turbines on the hill at {town}.

l: The queue outside the Regal on {street} reminded some of their youth.
k: The cinema, which was due to be torn down, was bought by {num} families in {town} and shows
  films again.
d: Each of them put in part of their savings, {big} crowns in all.
d: {who} sells the tickets and also plays the piano.
d: The seats come from a theatre that closed in {month}.
d: It first opened in {year}.
s: Families in {town} have saved the local cinema by buying it together.
s: {num} families bought the cinema in {town} and saved it from demolition.

l: {who} was on the way to work when a cry came from the river in {town}.
k: Without taking off a coat, the postal worker jumped in near {street} and pulled out a girl of
  {school}.
d: The water was high and cold after days of rain.
d: Both were taken to hospital and are doing well.
d: The girl had tried to reach a ball from the bank.
d: The mayor wants to award a medal in {month}.
s: A postal worker saved a schoolgirl from the river in {town}.
s: A girl who fell into the river at {town} was rescued by a postal worker.

l: Bins in {town} overflowed this week, and gulls did the rest.
k: The refuse workers walked out on {day} and will stay out until they are paid for {num} extra
  hours each.
d: The council calls the claim too high and offers half.
d: {who} on {street} has begun to burn paper in the garden.
d: Talks are to be held before the end of {month}.
d: The hospital is served by a private firm.
s: Refuse workers in {town} are on strike over pay for extra hours.
s: Rubbish piles up in {town} as its collectors strike for overtime pay.

l: On paper, {school} in {town} should not have stood a chance.
k: Its chess team, the youngest in the contest, won {num} of its games in {month} and took the
  national title.
d: The club meets in a boiler room, since no other is free.
d: {who}, a retired miner, taught the children for nothing.
d: Shops on {street} put boards in their windows on {day}.
d: The prize is a journey to Iceland.
s: The chess team of {school} has won the national title.
s: Young chess players from {town} are the new national champions.

l: Beekeepers in {town} noticed in {month} that something was wrong.
k: Tests have shown that {num} hives were killed by a spray meant for weeds along {street}.
d: The contractor had ignored a warning about flowering plants.
d: {who} lost every colony and will not start again.
d: The council has stopped all spraying for the time being.
d: Honey at the {day} market has already become dearer.
s: Weed spray killed {num} bee hives in {town}, tests show.
s: Tests blame a weed spray for the loss of {num} hives in {town}.

l: A letter addressed simply to "the house with the blue door" arrived on {street} on {day}.
k: It had been posted by a soldier in {year}, and a postal worker in {town} found it behind a
  cabinet.
d: {who}, a grandchild of the soldier's sweetheart, still lives nearby and cried over it.
d: In it he asks for socks and for an answer.
d: They married two years later all the same.
d: The stamp alone is worth {num} crowns.
s: A letter posted by a soldier in {year} has been delivered in {town}.
s: A soldier's lost letter of {year} has at last reached {town}.

l: Visitors to the {town} fair on {day} looked up and saw that the big wheel had stopped.
k: {num} people sat in it for two hours, until the fire brigade brought them down one by one with
  a ladder.
d: A worn cable was to blame, the operator said.
d: {who} sang songs to keep the children calm.
d: Nobody was hurt, although {weather} made the work harder.
d: Tickets will be refunded on {street} until the end of {month}.
s: Firefighters freed {num} people from a stuck big wheel in {town}.
s: A broken big wheel trapped {num} people for two hours at the {town} fair.

l: Since {year} the ferry has crossed the river at {town} without a break.
k: Its last journey will be on a {day} in {month}, when the tunnel at {street} opens and makes it
  needless.
d: A single crossing takes {num} minutes in bad weather.
d: {who}, the captain, has been offered work as a guide.
d: The boat is to become a restaurant.
d: Cyclists, who may not use the tunnel, have protested.
s: The ferry at {town} stops in {month} because a tunnel replaces it.
s: A new tunnel ends the ferry service of {town} in {month}.
"""
