"""Abstracts of invented research papers, with their titles as summaries."""

TEXT = """
## slots
n: 48 | 64 | 96 | 120 | 152 | 210 | 340
pct: 11 | 14 | 17 | 21 | 26 | 33
country: Finland | Portugal | Japan | Chile | Canada | Ireland | Estonia
years: two | three | four | five | six
crop: barley | rye | maize | wheat | sorghum | millet
fish: trout | perch | salmon | pike | carp
city: Lyon | Dresden | Osaka | Bilbao | Tampere | Montreal

## frames
k: We show that a short period of light at dawn is enough to advance the flowering of {crop} by
  {pct} days.
b: The time at which {crop} flowers limits where it can be grown, yet little is known about the
  part played by short periods of light.
m: Plants were raised in {years} growth rooms in {country} under lamps that differed in their
  timing only.
d: Light given at dusk had no measurable influence, and yield was the same in all groups.
e: Breeders may be able to use the method in greenhouses without changing the variety.
s: Light at dawn brings forward flowering in {crop}
s: Earlier flowering of {crop} after additional light at dawn

k: Those who had slept for less than six hours made {pct} per cent more errors, whereas experience
  made no difference.
b: Bus drivers often begin work before dawn, and the consequences for their attention are
  disputed.
m: In this study, {n} drivers in {city} completed a test of reaction time before each shift for
  {years} weeks.
d: Coffee taken during the hour before the test did not reduce the number of errors.
e: The results argue for later rosters rather than for longer training.
s: Short sleep increases errors of attention among bus drivers
s: Lack of sleep, not inexperience, impairs the attention of bus drivers in {city}

k: Streets with a closed canopy were cooler by a degree and a half in the afternoon than streets
  without trees.
b: Summers in European cities are getting warmer, and planting trees is a popular response whose
  benefit is seldom measured.
m: For {years} summers, sensors on {n} lamp posts in {city} recorded the temperature of the air
  every ten minutes.
d: At night the difference vanished, and isolated young trees had no influence at all.
e: Planners should therefore protect old trees before they plant new ones.
s: Cooling of streets by mature trees in {city}
s: Old street trees cool {city} on summer afternoons

k: Fish kept with stones explored new tanks {pct} per cent faster and found food sooner than those
  from bare tanks.
b: Hatcheries release large numbers of {fish} every year, but only a few of the animals survive in
  the wild.
m: We reared {n} young {fish} in tanks that were either bare or furnished with stones, and then
  observed them for {years} weeks.
d: The two groups did not differ in weight or in the number of parasites.
e: A few stones may thus be a cheap means of improving the survival of released fish.
s: Furnished tanks make young {fish} better explorers
s: Effects of stones in hatchery tanks on the behaviour of {fish}

k: Pupils who explained each solution to a partner scored {pct} per cent higher than pupils who
  repeated the exercises alone.
b: Homework in mathematics mostly consists of repeated exercises, although their value has been
  questioned.
m: We compared two kinds of practice in {n} classes in {country} over {years} months.
d: The advantage was largest for those with low marks at the start, and it was still present after
  the holidays.
e: Teachers need no additional material to use the method.
s: Explaining solutions to a partner improves results in mathematics
s: Practice in pairs beats repetition in school mathematics

k: Our method finds the same optimum as exhaustive search in all {n} cases and needs only one part
  in {pct} of the time.
b: Planning the rounds of a delivery fleet becomes slow when the number of stops is large.
m: We propose to split the map into cells, to solve each cell separately and to join the results
  with a second search.
d: It was tested on data from {city} and on artificial maps with up to {years} thousand stops.
e: The code requires no special hardware and can be added to existing systems.
s: A fast method of splitting maps for planning delivery rounds
s: Optimal delivery rounds in less time by division into cells

k: Bread made with sea salt and bread made with rock salt could not be told apart by any group,
  trained or not.
b: Manufacturers claim that the origin of salt can be tasted, and they charge accordingly.
m: A panel of {n} bakers and an equal number of customers in {city} judged {years} kinds of bread
  without knowing which salt had been used.
d: Only the amount of salt mattered, and a difference of {pct} per cent was noticed by nearly
  everybody.
e: The price of a salt is therefore no guide to its flavour in bread.
s: The origin of salt has no influence on the taste of bread
s: Neither bakers nor customers taste where the salt in bread comes from

k: The layers reveal {years} large floods within the past thousand years, all of which followed
  winters with much snow.
b: Written records of floods in {country} reach back for only {n} years, which is too short to
  judge rare events.
m: We drilled cores from the bed of a lake and counted the layers of sand that rivers had left
  there.
d: The largest layer is {pct} centimetres thick and corresponds to no event in the chronicles.
e: Dams in the region were designed for smaller amounts of water.
s: A thousand years of floods recorded in lake sediments from {country}
s: Lake cores reveal large floods unknown to written records in {country}

k: After {years} months, those who had walked for half an hour a day reported {pct} per cent less
  pain than the others.
b: Back pain is usually treated with rest or medication, and simple alternatives have received
  little attention.
m: At random, {n} patients from clinics in {country} were assigned to a walking group or to the
  usual care.
d: Neither age nor weight altered the outcome, and nobody was harmed by the exercise.
e: Walking can be recommended as a first measure that costs nothing.
s: Daily walking reduces chronic back pain
s: A randomised trial of walking against back pain in {country}

k: Hives near fields of {crop} with flower strips produced {pct} per cent more honey than hives
  near fields without them.
b: Strips of wild flowers along fields are subsidised in {country}, mostly for the sake of wild
  insects.
m: Over {years} seasons we weighed {n} hives of honey bees once a week and noted which plants were
  in flower.
d: The gain was greatest in July, when little else was in bloom, and disease was equally frequent
  in both groups.
e: Beekeepers thus profit from a measure that was not designed for them.
s: Flower strips raise the honey yield of nearby hives
s: Wild flower strips along {crop} fields benefit honey bees in {country}

k: Readers of paper remembered the order of events better, while memory for facts was equal in
  both groups.
b: Schools in {country} are replacing printed books by tablets, and it is unclear how this affects
  understanding.
m: We asked {n} students to read a story of {pct} pages on paper or on a screen and tested them
  {years} days later.
d: Habit did not explain the result, for frequent users of tablets showed it as well.
e: Turning pages may provide a sense of place that a screen lacks.
s: Order of events is remembered better from paper than from screens
s: Reading on paper supports memory for the sequence of a story

k: The new coating reduced the growth of ice by {pct} per cent and was still intact after {years}
  winters.
b: Ice on the blades of wind turbines lowers their output and is a danger to passers-by.
m: We mixed a common paint with wax particles and applied it to {n} blades at a site in {country}.
d: Blades with ordinary paint had to be heated on most days of January.
e: The material is cheap, and no factory would have to change its machines.
s: A wax coating that keeps ice off wind turbine blades
s: Durable paint with wax limits icing of turbine blades

k: Villages that kept their school lost {pct} per cent fewer inhabitants than those in which it
  was closed.
b: Small schools in rural areas are expensive, and many have been shut in recent decades.
m: From the registers of {country} we took the populations of {n} villages, {years} decades before
  and after the closures.
d: Shops and doctors, by contrast, had no clear influence on whether families stayed.
e: Savings on schools should be weighed against the cost of empty houses.
s: Closing of village schools speeds up rural decline in {country}
s: Villages without a school lose more inhabitants

k: Crows solved the task faster when they had seen another bird fail than when they had seen one
  succeed.
b: Many animals learn by watching others, but it is rarely asked whether they also learn from
  mistakes.
m: In aviaries near {city}, {n} crows observed a bird at a box with {years} levers, of which one
  released food.
d: The difference amounted to {pct} seconds on average and was found in both sexes.
e: Watching errors appears to draw attention to what remains to be tried.
s: Crows learn from the mistakes of other crows
s: Observed failure teaches crows more than observed success

k: Patients who received the call came to {pct} per cent more of their appointments than those who
  received a letter.
b: Missed appointments cost hospitals in {country} a great deal of money every year.
m: We sent reminders to {n} patients of a hospital in {city}, half by letter and half by
  telephone, for {years} months.
d: The day of the week was irrelevant, and text messages were as ineffective as letters.
e: Even after the wages of the callers are paid, the hospital saves money.
s: Telephone calls reduce missed hospital appointments
s: Calls work better than letters as reminders of appointments

k: Varnish made with egg white dampened the tone least, and {n} listeners preferred it in {pct}
  more comparisons than any other.
b: The varnish of old violins is said to be responsible for their sound, a belief that has hardly
  been tested.
m: A maker in {city} built {years} identical instruments, and each was given a different varnish.
d: The thickness of the layer mattered as well, whereas its age did not.
e: The fame of old varnish may rest on its ingredients rather than on time.
s: Egg white varnish and the sound of violins
s: Varnish with egg white dampens the tone of violins least

k: Soil under clover kept {pct} per cent more water in July than bare soil, and {crop} sown
  afterwards grew taller.
b: Farmers leave fields bare after the harvest, although dry summers are becoming more frequent.
m: On {n} plots in {country} we compared clover, grass and bare soil for {years} years.
d: Grass used up as much water as it saved.
e: Sowing clover can be advised where summers are dry.
s: Clover helps soil to hold water for the following {crop}
s: Cover of clover keeps more water in the soil than bare fallow

k: A network trained on short recordings recognised the calls of {years} owl species as reliably
  as experts did.
b: Owls are hard to count because they are active at night and seldom seen.
m: We placed {n} recorders in forests of {country} and had part of the material labelled by two
  experts.
d: Wind was the main source of errors, which affected {pct} per cent of the files.
e: Surveys that took a season can now be evaluated within hours.
s: Automatic recognition of owl calls reaches the level of experts
s: Counting owls by means of a network that recognises their calls

k: Prices ending in nine did not raise sales; shops that changed to round prices sold {pct} per
  cent more.
b: Most shops set prices just below a round number because customers are assumed to read only the
  first digit.
m: With the help of {n} grocers in {city}, we exchanged such prices for round ones for {years}
  weeks.
d: Customers said that adding up the bill had become easier.
e: A custom of more than a century may rest on an error.
s: Round prices sell better than prices ending in nine
s: No benefit of prices ending in nine: a trial with grocers in {city}

k: A solution of ordinary soap removed as many bacteria as the {years} disinfectants, provided
  that it was left for a minute.
b: Kitchens of restaurants use strong disinfectants that irritate the skin of the staff.
m: Boards from {n} kitchens in {city} were cleaned with one of several products and then examined.
d: Rinsing at once halved the effect, and wooden boards did no worse than plastic ones.
e: Time matters more than the product, and {pct} per cent of the cost could be saved.
s: Soap cleans kitchen boards as well as disinfectants
s: Ordinary soap is sufficient for chopping boards if given time

k: Maps drawn by children who walk to school showed {pct} per cent more places than maps drawn by
  children who are driven.
b: More and more children are taken to school by car, with unknown effects on how they come to
  know their surroundings.
m: We asked {n} pupils in {city}, aged between seven and twelve, to draw the way to school from
  memory.
d: The length of the way was not decisive, and girls and boys did equally well.
e: Walking seems to build knowledge of a neighbourhood that no ride can replace.
s: Children who walk to school know their neighbourhood better
s: Walking to school and the maps that children have in mind

k: Adding {pct} grams of ash to each litre made the bricks a third stronger and no heavier.
b: Bricks of unfired clay are cheap, but rain damages them within a few years.
m: We mixed clay from {country} with ash from {crop} straw and pressed {n} bricks, which were
  stored outdoors.
d: After {years} rainy seasons the new bricks had lost hardly any material.
e: The ash is at present thrown away, so the method costs almost nothing.
s: Stronger clay bricks through the addition of straw ash
s: Ash from {crop} straw protects unfired bricks against rain

k: Voters who received plain ballots made {pct} per cent fewer mistakes, and old people gained the
  most.
b: Ballots in {country} are crowded with small print, and many votes are invalid.
m: In a mock election with {n} participants, we compared the official ballot with {years} simpler
  designs.
d: The order of the candidates was the same throughout and did not influence the result.
e: A new design would be cheap and could be introduced without a change of law.
s: Simpler ballots lead to fewer invalid votes
s: Effect of ballot design on mistakes by voters in {country}

k: The songs of birds beside the motorway were higher in pitch by {pct} per cent and became lower
  again when traffic stopped.
b: Noise from traffic covers the lower parts of many bird songs.
m: We recorded {n} great tits near {city} before, during and after a closure of the road that
  lasted {years} months.
d: Volume did not change, and nor did the number of nests.
e: The birds evidently adjust within weeks rather than over generations.
s: Great tits quickly adapt the pitch of their song to traffic noise
s: Motorway noise raises the pitch of bird song reversibly

k: Only {pct} per cent of the devices could be opened without damage, although nearly all had a
  fault that was easy to repair.
b: Electrical waste in {country} is growing, and repair is discussed as a remedy.
m: We collected {n} discarded kettles, irons and lamps at a recycling yard in {city} and took them
  apart.
d: In most cases a part worth less than {years} crowns had failed.
e: Screws in place of glue would allow the majority to be used again.
s: Glued cases prevent the repair of most discarded devices
s: Most discarded household devices have simple faults but cannot be opened
"""
