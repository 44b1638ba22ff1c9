"""Notes to colleagues in a company, with their gist."""

TEXT = """
## slots
boss: Helen | Marcus | Ingrid | Victor | Yvonne | Desmond | Farah | Klaus
team: sales | finance | design | support | warehouse | marketing
day: Monday | Tuesday | Wednesday | Thursday | Friday
floor: second | third | fourth | fifth | sixth
hour: 9 | 10 | 11 | 2 | 3 | 4
num: 5 | 6 | 8 | 10 | 15 | 20 | 25
client: Brightwell | Osprey | Talisman | Nordic Pine | Cobalt | Vireo | Larkspur
month: February | March | April | June | July | September | October

## frames
l: Hi all, you will have noticed the puddle by the printers.
k: Facilities must turn off the water on the {floor} floor on {day} from {hour} o'clock until it
  is fixed.
d: Please use the kitchen downstairs and bring a bottle.
d: {boss} has the keys to the showers if you cycle in.
s: No water on the {floor} floor on {day} while a leak is repaired

l: Quick one from the {team} team.
k: {client} have moved their visit to {day}, so slides need to be with {boss} a day earlier than
  planned.
d: Nobody has to wear a tie.
d: Lunch is ordered for {num} people; tell me about allergies.
s: {client} will visit on {day} and slides are due a day earlier

l: As many of you guessed from the cake, there is news.
k: {boss} is leaving the {team} team in {month} to run the office of {client}.
d: Until we find somebody, please send open questions to me.
d: We will collect for a present, and the envelope is in the top drawer.
s: {boss} leaves the {team} team in {month} for a post at {client}

l: Dear colleagues, the figures for the last quarter are in.
k: Thanks to {client}, the {team} team beat its target by {num} per cent, and each of you will get
  a bonus in {month}.
d: {boss} will explain the details on {day}.
d: Please do not discuss the numbers with people outside.
s: A bonus in {month} follows the strong quarter of the {team} team

l: This is the third time that I write about the fridge on the {floor} floor.
k: From {day} on, whatever carries no name will be thrown out at {hour} o'clock, boxes included.
d: Labels and a pen hang on the door.
d: {boss} found something green in there that we could not identify.
s: Unlabelled food will be removed from the fridge from {day}

l: Security asked me to pass this on.
k: Old badges stop working in {month}; collect the new one from {boss} on the {floor} floor and
  bring a photo.
d: Visitors will still get paper badges.
d: The office of {client} is not affected.
s: All staff need a new badge before {month}

l: Good morning, team, and sorry for the short notice.
k: I have to cancel the {day} training, as the speaker from {client} is ill; a new date in {month}
  will follow.
d: The room stays booked, so the {team} team can use it at {hour}.
d: Whoever paid for a train ticket gets the money back from {boss}.
s: The training on {day} is cancelled because the speaker is ill

l: You asked for it often enough.
k: Starting in {month}, everybody in the {team} team may work from home for up to two days a week,
  except on {day}.
d: Agree on your days with {boss}.
d: The phones must be covered from {hour} o'clock.
s: The {team} team may work from home two days a week from {month}

l: To everyone who parks behind the building.
k: The car park will be resurfaced on {day}, and cars that are still there at {hour} o'clock will
  be towed at your cost.
d: {client} lets us use {num} of its spaces across the road.
d: Bicycles may stay.
s: Cars must be out of the car park on {day} because of resurfacing

l: Please read this before you open your mail.
k: Someone is sending false invoices in the name of {client}; do not pay or click on anything, and
  forward it to {boss}.
d: So far {num} people in the {team} team have received one.
d: The real invoices always come by post.
s: Warning of false invoices sent in the name of {client}

l: After a lot of back and forth, we have signed.
k: Our {team} team moves to the {floor} floor in {month}, into the rooms that {client} gives up.
d: Crates come on {day}.
d: {boss} draws the seating plan, and window seats go by length of service.
s: The {team} team will move to the {floor} floor in {month}

l: I know that nobody loves paperwork.
k: Travel claims for {month} must reach finance by {day} at {hour} o'clock, or they will not be
  paid this year.
d: Photos of receipts are fine.
d: {boss} can help with the form, which takes {num} minutes.
s: Travel claims for {month} are due on {day}

l: Hello everyone, this one is sad.
k: {client} has ended its contract with us, and we therefore stop hiring for the {team} team until
  {month}.
d: Nobody loses a job, {boss} promised.
d: There will be a meeting on {day} at {hour} for questions.
s: No new staff for the {team} team until {month} after the loss of {client}

l: The survey is closed, and {num} of you filled it in.
k: Most want a longer lunch break, so we try an hour instead of half from {day} on, for the {team}
  team only.
d: The day then ends later by half an hour.
d: {boss} will ask you again in {month} what you think.
s: The {team} team tries a lunch break of one hour from {day}

l: IT here, with apologies in advance.
k: The mail server is replaced on {day} night, and you must set a new password when you log in
  afterwards.
d: Mail from {client} may arrive late.
d: If you are stuck, {boss} is on the {floor} floor from {hour} o'clock.
s: New passwords are needed after the mail server is replaced on {day}

l: Remember the chairs that hurt everybody's back?
k: We have money for {num} new ones, and the {team} team goes first because of the long shifts.
d: Try the two models on the {floor} floor before {day}.
d: {boss} keeps the list; one vote each.
s: The {team} team will be the first to get new chairs

l: A word on the party in {month}.
k: The boat is not available, so we celebrate at the bowling hall on a {day} from {hour} o'clock
  instead.
d: Partners are welcome this time.
d: {boss} still needs {num} volunteers for the quiz, and the {team} team brings the music.
s: The party in {month} moves from the boat to the bowling hall

l: Customers have noticed, and so has the press.
k: The blue lamps made for {client} get too hot; stop every shipment now and send back what is
  left to {boss}.
d: We know of {num} cases, all without injury.
d: The {team} team has a text for callers.
s: Shipments of the blue lamps stop because they overheat

l: It took a year, but the lawyers are happy.
k: As of {month} we own {client}, and its {num} people will join our {team} team.
d: The name stays on the door for now.
d: Come and say hello on {day}; {boss} has ordered cake.
s: We have bought {client}, whose staff join the {team} team

l: From the health and safety corner.
k: There will be a fire drill on {day} at {hour}; leave by the stairs and wait by the gate until
  you are counted.
d: Last time it took {num} minutes, which is too long.
d: {boss} checks the {floor} floor, so do not hide in the kitchen.
s: Fire drill on {day}, with everyone to gather at the gate

l: Following complaints from {client}, I listened to some calls.
k: From {day} on, nobody waits longer than {num} minutes: {team} staff have to help with the
  phones when queues grow.
d: A lamp on the {floor} floor will show when that is.
d: {boss} trains you in {month}.
s: The {team} team must help on the phones when callers wait too long

l: Good news for all who drink too much coffee.
k: A new machine arrives on {day}, and until {month} every cup is free, paid for by {client}.
d: The old one goes to the {team} team.
d: Please do not put syrup into the tank, as {boss} did.
s: Coffee from the new machine is free until {month}

l: {boss} asked me to say this carefully.
k: The project for {client} will be late by {num} weeks, because a supplier delivered the wrong
  parts in {month}.
d: The client was told on {day} and took it well.
d: The {team} team need not work at weekends.
s: Wrong parts delay the {client} project by {num} weeks

l: To the {team} team, with thanks.
k: You won the prize of the trade association for the {client} campaign, ahead of {num} other
  entries.
d: {boss} picks up the cup in {month}.
d: Drinks are on the house on {day} from {hour} o'clock.
s: The {client} campaign of the {team} team has won a trade prize

l: A small change with a big effect, we hope.
k: Meetings on {day} are abolished from {month} for all teams, so that there is one quiet day.
d: Calls with {client} are the only exception.
d: {boss} from the {team} team will delete what is in the calendars.
s: No more meetings on {day} from {month}
"""
