"""Customer reviews of household devices: plain, first person, one verdict each."""

TEXT = """
## slots
time: a week | ten days | two weeks | three weeks | a month | six weeks | two months | half a year
  | three months
friend: my sister | my brother | a friend | my neighbour | a colleague | my flatmate | my cousin |
  the shop assistant
place: home | school | work | my mother's flat | the holiday cottage | our new flat | the office

## frames
p: kettle
f: it boils a litre in two minutes / it needs ten minutes to boil one cup
f: the handle stays cool / the handle gets too hot to hold
f: it pours without a drip / it dribbles over the worktop every time
f: the lid opens with one finger / the lid jams after every use
f: tea made with it tastes clean / tea made with it tastes of plastic

p: toaster
f: both slices come out evenly brown / one side comes out black and the other white
f: thick bread fits with room to spare / thick bread gets stuck halfway
f: the crumb tray slides out smoothly / the crumb tray needs a knife to get it out
f: it switches off the moment I press stop / it keeps burning after I press stop
f: it looks smart on the shelf / it looks like a toy on the shelf

p: vacuum cleaner
f: it picks up every dog hair on the first pass / it leaves dog hair on the carpet after five
  passes
f: the baby sleeps through the noise / the noise frightens the baby
f: the cable reaches every room / the cable is too short for one room
f: emptying it takes seconds / emptying it covers me in dust
f: it weighs next to nothing on the stairs / dragging it up the stairs hurts my back

p: phone
f: the battery lasts two full days / the battery is flat by noon
f: the screen is readable in bright sun / the screen is unreadable in the sun
f: the camera is sharp even at night / the camera turns every evening into a blur
f: calls sound as if the other person were next to me / calls sound as if the other person were in
  a tunnel
f: it survived a fall onto stone / it cracked after falling off the sofa

p: pair of headphones
f: the sound is warm and full / the sound is thin and tinny
f: I forget that I am wearing them / my ears ache after half an hour
f: they pair with the laptop at once / they lose the laptop every few minutes
f: the train goes silent when I switch them on / I still hear every word on the train
f: the cushions look new / the cushions are already peeling

p: camera
f: it focuses before I can think / it is still focusing when the bird has gone
f: skin looks natural in every picture / skin looks orange in every picture
f: the menu makes sense without a manual / the menu makes no sense even with the manual
f: it fits into a coat pocket / it needs a bag of its own
f: the strap feels solid / the strap came apart in my hand

p: coffee machine
f: the coffee is strong and hot / the coffee is weak and lukewarm
f: cleaning it takes one minute / cleaning it takes longer than drinking the coffee
f: it is quiet enough for six in the morning / it wakes the whole house at six
f: the milk comes out thick and smooth / the milk comes out as grey bubbles
f: the tank lasts all day / the tank is empty after two cups

p: electric drill
f: it goes through brick like butter / it stalls in soft wood
f: the spare battery charges over lunch / the spare battery charges all day
f: the grip suits small hands / the grip gives me blisters
f: bits lock in firmly / bits fall out on every job
f: the case keeps everything tidy / the case does not even close

p: desk lamp
f: the light is soft and steady / the light flickers all evening
f: the arm stays in place / the arm sinks onto the desk
f: the switch is easy to find in the dark / the switch is impossible to find in the dark
f: it stands firmly / it topples over at every touch
f: the bulb stays cool all evening / the bulb gets too hot to touch

p: tablet
f: films play without a hitch / films stop every few minutes
f: pages load at once / pages take an age to load
f: my children draw on it for hours / my children gave up drawing on it
f: updates run overnight without trouble / each update breaks something new
f: the glass still has no scratch / the glass was scratched on day one

p: printer
f: it found the network by itself / it refuses to see the network
f: paper runs through without a jam / paper jams on every second page
f: the ink lasts for months / the ink is gone after thirty pages
f: text comes out crisp and black / text comes out grey and smeared
f: scanning takes one touch / scanning takes nine clicks and a prayer

p: watch
f: it counts every step correctly / it counts steps in bed at night
f: swimming does it no harm / one shower was enough to fog the glass
f: the strap feels like silk / the strap scratches
f: I can read it without my glasses / I need a lens to read it
f: one charge lasts a week / one charge lasts an afternoon

p: blender
f: frozen fruit turns into a smooth drink / frozen fruit stays in lumps
f: it rinses clean under the tap / the seal traps food where no brush can reach
f: it runs without shaking / it walks across the table by itself
f: the jug is thick and solid / the jug cracked in the first wash
f: even nuts are no problem for it / even a banana is too much for it

p: heater
f: the room is cosy within minutes / the room is still cold after two hours
f: it hums so softly that I sleep well / it rattles so loudly that I cannot sleep
f: the bill has hardly changed / the bill has doubled
f: it turns itself off when it tips over / it stays on when it tips over
f: the dial is precise / the dial does nothing at all

p: bike light
f: drivers see me from far away / drivers still do not see me
f: it clips on in a second / it takes a screwdriver and ten minutes to fit
f: rain never gets in / the first rain killed it
f: it shines for a week of rides / it dies on the way home
f: the beam covers the whole lane / the beam barely reaches my front wheel

p: keyboard
f: the keys feel crisp and light / the keys feel like wet cardboard
f: typing all day leaves my wrists relaxed / typing for an hour makes my wrists hurt
f: the letters have not faded / the letters have rubbed off
f: it connects without a delay / it drops every third letter
f: nobody in the office hears me type / the whole office hears me type

p: speaker
f: it fills the garden with clear sound / it sounds like a radio in a bucket
f: the bass is deep but never muddy / the bass buzzes at low volume
f: it plays all night on one charge / it gives up before the party starts
f: sand and water do it no harm / a little sand stopped the buttons
f: my mother set it up alone / three adults could not set it up

v: I would buy it again tomorrow / I would not buy it again
v: I would not send it back for any money / I would send it back today if I had the receipt
v: the bad reviews are wrong / the bad reviews are right
v: the good reviews are right / the good reviews are wrong
v: little about this purchase disappoints me / little about this purchase pleases me
v: nearly everything about it pleases me / nearly everything about it disappoints me
v: I find little worth complaining about / I find little worth praising
v: there is plenty to praise / there is plenty to complain about
v: I was wrong to doubt this brand / I was wrong to trust this brand
v: I was right to trust this brand / I was right to doubt this brand
v: I only regret not ordering sooner / I only regret not ordering another brand
v: I do not regret the money for one second / I regret every penny of the money
v: it was not a bad buy at all / it was not a good buy at all
v: it was a very good buy / it was a very bad buy
v: I would pay twice the price / I would not pay half the price
v: I have stopped looking for a better model / I have started looking for a better model
v: this brand has not let me down once / this brand has let me down again
v: I cannot recommend this model enough / I cannot recommend this model to anyone
v: things could hardly be better / things could hardly be worse
v: anyone who calls it a waste of money is mistaken / anyone who calls it a bargain is mistaken
v: it is far from the waste of money that I feared / it is far from the bargain that I expected
v: I tried hard to dislike it and could not / I tried hard to like it and could not
v: my next one will be the same model / my next one will be anything but the same model
v: my one mistake was waiting so long / my one mistake was not waiting for a better model
v: what looked like a mistake became a joy / what looked like a joy became a mistake
v: I ordered a second one at once / I asked for my money back at once
v: my doubts are gone / my hopes are gone
v: it deserves all five stars / it does not deserve one of its five stars

s: {o}, but {f}, and {v}.
s: {f}. {v}.
s: yes, {o}. Even so, {v}.
s: after {time} with this {p}, I know one thing: {v}. {f}.
s: {o}, I admit. Still, {f}, and {v}.
s: we use the {p} at {place}. {f}, so {v}.
t: some owners write that {o}. Not here: {c}. {v}.
s: whatever other people say, {f}. {v}.
s: {v}, even though {o}.
s: {f}, and {f2}. {v}.
t: {friend} told me that {o}. That is simply not true: {c}.
t: {friend} told me that {f}. That is true, and {v}.
t: I was told that {o}, and I was told wrong: {c}. {v}.
s: it may be that {o}, but in the end {v}.
s: {v}. {f}, and that matters more to me than that {o}.
s: {time} on, the verdict on this {p} is clear: {v}.
s: {friend} asked about my {p}. My answer: {f}, and {v}.
s: true, {o}. What decides it for me is that {f}: {v}.
s: one thing first: {o}. But {f}, {f2}, and {v}.
s: {v}. Ask {friend}: {f}.
t: forget that {o}. {f}, and {v}.
s: ordered this {p} for {place}. {v}, because {f}.
s: {f}. Who cares that {o}? {v}.
t: everybody at {place} says that {o}. They must own another {p}, because here {c}.
"""
