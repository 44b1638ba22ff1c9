"""Textbook passages on natural science; every fact in them is true."""

TEXT = """
## frames
c: Plants make their own food by photosynthesis. In this process, chlorophyll in the leaves
  captures sunlight, and carbon dioxide and water are turned into sugar and oxygen.
q: photosynthesis => By what process do plants make their own food?
q: chlorophyll => Which substance in the leaves captures sunlight?
q: sugar and oxygen => What are carbon dioxide and water turned into during photosynthesis?

c: The heart is a muscle that pumps blood through the body. Arteries carry blood away from the
  heart, whereas veins bring it back.
q: arteries => Which vessels carry blood away from the heart?
q: veins => Which vessels bring blood back to the heart?
q: it pumps blood through the body => What does the heart do?

c: Sound travels as waves of pressure. It moves faster in water than in air, and it cannot travel
  through empty space, because there are no particles to carry it.
q: because there are no particles to carry it => Why can sound not travel through empty space?
q: as waves of pressure => How does sound travel?
q: in water => Does sound move faster in air or in water?

c: Atoms consist of a nucleus and electrons. The nucleus contains protons, which are positively
  charged, and usually neutrons, which have no charge.
q: protons => Which particles in the nucleus are positively charged?
q: neutrons => Which particles in the nucleus have no charge?
q: a nucleus and electrons => What do atoms consist of?

c: The Moon orbits the Earth once in about 27 days. Its gravity, together with that of the Sun,
  causes the tides of the oceans.
q: about 27 days => How long does the Moon take to orbit the Earth?
q: the tides of the oceans => What do the gravity of the Moon and that of the Sun cause?
q: the Earth => Which body does the Moon orbit?

c: Mammals feed their young with milk. Most give birth to live young, but the platypus and the
  echidnas, which live in Australia and New Guinea, lay eggs.
q: with milk => How do mammals feed their young?
q: the platypus and the echidnas => Which mammals lay eggs?
q: in Australia and New Guinea => Where do the mammals that lay eggs live?

c: Water boils at 100 degrees Celsius at sea level. On high mountains, where the pressure of the
  air is lower, it boils at a lower temperature.
q: 100 degrees Celsius => At what temperature does water boil at sea level?
q: because the pressure of the air is lower => Why does water boil at a lower temperature on high
  mountains?
q: on high mountains => Where does water boil at a lower temperature than at sea level?

c: Igneous rock forms when molten rock cools and becomes solid. Granite cools slowly underground,
  while basalt usually cools quickly at the surface.
q: when molten rock cools and becomes solid => How does igneous rock form?
q: granite => Which rock cools slowly underground?
q: at the surface => Where does basalt usually cool?

c: The human skeleton has 206 bones in an adult. Babies are born with more, and some of these grow
  together as the child gets older.
q: 206 => How many bones does an adult human have?
q: some of these grow together as the child gets older => Why do adults have fewer bones than
  babies?
q: babies => Who has more bones than an adult?

c: Jupiter is the largest planet of the solar system. Its Great Red Spot is a storm that has been
  observed for more than 150 years.
q: Jupiter => What is the largest planet of the solar system?
q: a storm => What is the Great Red Spot?
q: for more than 150 years => For how long has the Great Red Spot been observed?

c: Bees collect nectar from flowers and turn it into honey. While they fly from flower to flower,
  they carry pollen, which allows the plants to form seeds.
q: nectar => What do bees collect from flowers to make honey?
q: pollen => What do bees carry from flower to flower?
q: it allows the plants to form seeds => Why is the pollen carried by bees useful to plants?

c: Iron rusts when it is exposed to oxygen and water. A coat of paint or a layer of zinc keeps the
  air out and slows the damage.
q: when it is exposed to oxygen and water => When does iron rust?
q: a coat of paint or a layer of zinc => What can protect iron from rust?
q: iron => Which metal rusts in the presence of oxygen and water?

c: Light travels at about 300,000 kilometres per second in a vacuum. Light from the Sun therefore
  needs roughly eight minutes to reach the Earth.
q: about 300,000 kilometres per second => How fast does light travel in a vacuum?
q: roughly eight minutes => How long does light from the Sun need to reach the Earth?
q: from the Sun => Where does the light come from that reaches us after roughly eight minutes?

c: A caterpillar is the larva of a butterfly or a moth. After weeks of feeding, it becomes a pupa,
  inside which its body is rebuilt into that of the adult.
q: a caterpillar => What is the larva of a butterfly called?
q: a pupa => What does a caterpillar become after weeks of feeding?
q: inside the pupa => Where is the body of the caterpillar rebuilt?

c: Earthquakes occur when blocks of rock suddenly slip along a fault. The waves that they send out
  are recorded by instruments called seismometers.
q: when blocks of rock suddenly slip along a fault => When do earthquakes occur?
q: seismometers => Which instruments record the waves of earthquakes?
q: along a fault => Where do the blocks of rock slip in an earthquake?

c: Vitamin C helps the body to repair its tissues. People who lack it for months can fall ill with
  scurvy, which was once common among sailors.
q: scurvy => Which illness is caused by a lack of vitamin C?
q: among sailors => Among whom was scurvy once common?
q: it helps the body to repair its tissues => What does vitamin C do in the body?

c: Bats find their way in the dark by echolocation: they send out very high calls and listen to
  the echoes that come back from trees and insects.
q: echolocation => What is the method called by which bats find their way in the dark?
q: to the echoes => What do bats listen to when they fly in the dark?
q: very high calls => What kind of calls do bats send out?

c: Diamond and graphite are both made of carbon. Diamond is very hard, because each of its atoms
  is bound to four others, whereas graphite consists of layers that slide easily.
q: carbon => Which element are both diamond and graphite made of?
q: because each of its atoms is bound to four others => Why is diamond very hard?
q: graphite => Which form of carbon consists of layers that slide easily?

c: The lungs take in oxygen and give off carbon dioxide. This exchange takes place in tiny sacs
  called alveoli, which are surrounded by fine blood vessels.
q: in the alveoli => Where in the lungs are gases exchanged?
q: carbon dioxide => Which gas do the lungs give off?
q: fine blood vessels => What are the alveoli surrounded by?

c: A magnet has a north pole and a south pole. Equal poles repel each other, and opposite poles
  attract each other; cutting a magnet in two gives two smaller magnets.
q: they repel each other => What do equal poles of two magnets do?
q: they attract each other => What do opposite poles of two magnets do?
q: two smaller magnets => What does one get by cutting a magnet in two?

c: Frogs are amphibians. Their tadpoles live in water and breathe through gills, but most adult
  frogs breathe through lungs and through their moist skin.
q: through gills => How do tadpoles breathe?
q: amphibians => To which group of animals do frogs belong?
q: through lungs and through their moist skin => How do most adult frogs breathe?

c: Glaciers form where more snow falls than melts over many years. The snow is pressed into ice,
  which moves slowly downhill under its own weight.
q: where more snow falls than melts over many years => Where do glaciers form?
q: under its own weight => What makes the ice of a glacier move downhill?
q: into ice => What is the snow of a glacier pressed into?

c: Helium is a gas that is lighter than air. It does not burn, and for this reason it is preferred
  to hydrogen for filling balloons.
q: because it does not burn => Why is helium preferred to hydrogen for filling balloons?
q: helium => Which gas is lighter than air and does not burn?
q: hydrogen => Which gas is helium preferred to for filling balloons?

c: The retina at the back of the eye contains two kinds of cells. Rods work in dim light, while
  cones need more light and allow us to see colours.
q: rods => Which cells of the retina work in dim light?
q: cones => Which cells of the retina allow us to see colours?
q: at the back of the eye => Where is the retina?

c: Penguins are birds that cannot fly. Their wings serve as flippers, and most species live in the
  southern half of the world.
q: as flippers => How do penguins use their wings?
q: in the southern half of the world => Where do most species of penguin live?
q: they cannot fly => What can penguins, unlike most birds, not do?

c: Mercury is the planet closest to the Sun, yet Venus is hotter. The thick atmosphere of Venus,
  which is mostly carbon dioxide, keeps the heat in.
q: Mercury => Which planet is closest to the Sun?
q: the thick atmosphere of Venus keeps the heat in => Why is Venus hotter than Mercury?
q: carbon dioxide => What does the atmosphere of Venus mostly consist of?

c: An acid has a pH below 7, and a base has a pH above 7. Pure water at room temperature is
  neutral, with a pH of 7.
q: below 7 => What pH does an acid have?
q: a base => What is a substance with a pH above 7 called?
q: pure water => Which liquid has a pH of 7 at room temperature?

c: Bacteria were first described by Antonie van Leeuwenhoek, a Dutch draper, in the seventeenth
  century. He had ground the lenses of his microscopes himself.
q: Antonie van Leeuwenhoek => Who first described bacteria?
q: in the seventeenth century => When were bacteria first described?
q: he had ground the lenses himself => How had Leeuwenhoek obtained the lenses of his microscopes?

c: In a food chain, plants are producers. Animals that eat plants are called herbivores, and
  animals that eat other animals are called carnivores.
q: herbivores => What are animals that eat plants called?
q: carnivores => What are animals that eat other animals called?
q: producers => What role do plants have in a food chain?

c: Red blood cells carry oxygen with the help of haemoglobin, a protein that contains iron. White
  blood cells defend the body against germs.
q: iron => Which metal does haemoglobin contain?
q: white blood cells => Which blood cells defend the body against germs?
q: with the help of haemoglobin => How do red blood cells carry oxygen?

c: Fossils are the remains or traces of living things from the distant past. They are found mostly
  in sedimentary rock, which builds up in layers.
q: in sedimentary rock => In what kind of rock are fossils mostly found?
q: the remains or traces of living things from the distant past => What are fossils?
q: in layers => How does sedimentary rock build up?

c: A year on Mars lasts about 687 Earth days, because the planet is farther from the Sun than
  ours. Its soil looks red on account of iron oxide.
q: about 687 Earth days => How long does a year on Mars last?
q: iron oxide => What makes the soil of Mars look red?
q: because the planet is farther from the Sun => Why is a year on Mars longer than one on Earth?

c: Spiders have eight legs, whereas insects have six. Many spiders spin webs of silk, in which
  they catch their prey.
q: eight => How many legs do spiders have?
q: six => How many legs do insects have?
q: in webs of silk => How do many spiders catch their prey?

c: Copper conducts electricity well and is used for most cables in houses. Rubber and plastic
  conduct it badly, so they are used to cover the wires.
q: copper => Which metal is used for most cables in houses?
q: because they conduct electricity badly => Why are rubber and plastic used to cover wires?
q: rubber and plastic => Which materials are used to cover wires?

c: Salt water is denser than fresh water. This is why a swimmer floats more easily in the Dead
  Sea, whose water is about ten times as salty as that of the ocean.
q: because salt water is denser than fresh water => Why does a swimmer float easily in the Dead
  Sea?
q: about ten times => How many times as salty as the ocean is the Dead Sea?
q: salt water => Which is denser, salt water or fresh water?

c: Penicillin was discovered in 1928 by Alexander Fleming, who noticed that a mould had killed the
  bacteria in one of his dishes.
q: in 1928 => When was penicillin discovered?
q: Alexander Fleming => Who discovered penicillin?
q: a mould => What had killed the bacteria in Fleming's dish?

c: The troposphere is the lowest layer of the atmosphere, and nearly all weather takes place
  there. Above it lies the stratosphere, which holds most of the ozone.
q: in the troposphere => Where does nearly all weather take place?
q: the stratosphere => Which layer lies above the troposphere?
q: most of the ozone => What does the stratosphere hold?

c: A lever makes it easier to lift a load. The longer the arm on which one pushes, the smaller the
  force that is needed; the point on which it turns is called the fulcrum.
q: the fulcrum => What is the point called on which a lever turns?
q: it makes it easier to lift a load => What is the use of a lever?
q: a smaller force => What is needed when the arm on which one pushes gets longer?

c: Gregor Mendel studied peas in the garden of a monastery in Brno. From the colours and shapes of
  the seeds, he worked out how traits are inherited.
q: peas => Which plants did Gregor Mendel study?
q: in the garden of a monastery in Brno => Where did Gregor Mendel do his studies?
q: how traits are inherited => What did Gregor Mendel work out?

c: Sharks have skeletons of cartilage, not of bone. They can sense the weak electric fields that
  other animals produce, even in murky water.
q: cartilage => What are the skeletons of sharks made of?
q: the weak electric fields that other animals produce => What can sharks sense even in murky
  water?
q: bone => Which material is missing from the skeletons of sharks?

c: The speed of a chemical reaction usually rises with temperature. A catalyst also speeds a
  reaction up, without being used up itself.
q: a catalyst => What speeds up a reaction without being used up?
q: it usually rises => What happens to the speed of a reaction when the temperature rises?
q: with temperature => With what does the speed of a chemical reaction usually rise?

c: Deserts are regions with very little rain. The Sahara is the largest hot desert, but
  Antarctica, where hardly any snow falls inland, is a desert as well.
q: the Sahara => What is the largest hot desert?
q: very little rain => What do all deserts have in common?
q: because hardly any snow falls inland => Why is Antarctica a desert as well?

c: The liver is the largest organ inside the human body. It stores sugar, breaks down poisons and
  produces bile, which helps to digest fat.
q: the liver => What is the largest organ inside the human body?
q: bile => What does the liver produce to help digest fat?
q: it breaks them down => What does the liver do with poisons?

c: A solar eclipse happens when the Moon passes between the Sun and the Earth. In a lunar eclipse,
  the Earth passes between the Sun and the Moon.
q: when the Moon passes between the Sun and the Earth => When does a solar eclipse happen?
q: the Earth => What passes between the Sun and the Moon in a lunar eclipse?
q: a solar eclipse => What do we call the passing of the Moon between the Sun and the Earth?

c: Yeast is a fungus that feeds on sugar. In dough it gives off carbon dioxide, and the bubbles of
  this gas make the bread rise.
q: the bubbles of carbon dioxide => What makes bread rise?
q: on sugar => What does yeast feed on?
q: a fungus => What kind of living thing is yeast?

c: A thermometer filled with alcohol works because liquids expand when they are warmed. The
  alcohol rises in a narrow tube, and a scale beside it shows the temperature.
q: liquids expand when they are warmed => Why does a thermometer filled with alcohol work?
q: the temperature => What does the scale beside the tube show?
q: in a narrow tube => Where does the alcohol of a thermometer rise?

c: Owls fly almost without a sound, because fringes on their feathers break up the flow of air.
  Their prey, mostly mice and voles, hardly ever hears them.
q: because fringes on their feathers break up the flow of air => Why do owls fly almost without a
  sound?
q: mostly mice and voles => What do owls prey on?
q: almost without a sound => How do owls fly?

c: Mushrooms are not plants but fungi. The part that we see above the ground produces spores,
  while a network of fine threads, the mycelium, takes up food below.
q: the mycelium => What is the network of fine threads of a mushroom called?
q: spores => What does the part of a mushroom above the ground produce?
q: fungi => To which kind of living things do mushrooms belong?

c: Marie Curie, who was born in Warsaw, discovered the elements polonium and radium together with
  her husband. She won Nobel Prizes in physics and in chemistry.
q: polonium and radium => Which elements did Marie Curie discover with her husband?
q: in Warsaw => Where was Marie Curie born?
q: in physics and in chemistry => In which fields did Marie Curie win Nobel Prizes?

c: Ice is less dense than liquid water, and so it floats. A lake therefore freezes from the top,
  and fish can survive in the water beneath.
q: because it is less dense than liquid water => Why does ice float?
q: from the top => From where does a lake freeze?
q: in the water beneath => Where can fish survive when a lake freezes?

c: The ear turns sound into signals for the brain. The eardrum passes its vibrations on to three
  small bones, of which the stirrup is the smallest bone of the human body.
q: the stirrup => Which is the smallest bone of the human body?
q: to three small bones => To what does the eardrum pass on its vibrations?
q: signals for the brain => What does the ear turn sound into?

c: Camels store fat, not water, in their humps. They can live for weeks without drinking, and a
  thirsty camel may take in a hundred litres within minutes.
q: fat => What do camels store in their humps?
q: for weeks => For how long can camels live without drinking?
q: a hundred litres => How much may a thirsty camel drink within minutes?

c: Tin melts at 232 degrees Celsius, which makes it useful for soldering. Tungsten, by contrast,
  melts only above 3,400 degrees and was used in light bulbs for this reason.
q: at 232 degrees Celsius => At what temperature does tin melt?
q: tungsten => Which metal that melts only above 3,400 degrees was used in light bulbs?
q: for soldering => What is tin useful for because of its low melting point?
"""
